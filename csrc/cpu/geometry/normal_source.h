// Integrals of the standard normal density phi over power cells and their facets.
//
// A cell's mass is the sum over its facets of the mass of the cone from the origin over the facet, and that of a cone
// is the facet's solid angle less the mass beyond the facet. In polar coordinates both become integrals over edges:
// with p the distance of the facet's plane, q that of the edge from the foot of the origin in that plane, s the
// position along the edge, theta = atan(s / q) and r^2 = p^2 + q^2 + s^2,
//   solid angle    = sum_edges [atan(s / q) - atan(p s / (q r))]
//   mass beyond    = sum_edges int (erfc(p / sqrt 2) - (p / r) erfc(r / sqrt 2)) / (4 pi) dtheta
//   facet's mass   = phi_1(p) (sum_edges [atan(s / q)] - int exp(-(q^2 + s^2) / 2) dtheta) / (2 pi)
// where phi_1 is the density in one dimension, and distances carry the sign of the side on which the origin lies. In
// the plane the facets are the edges themselves. The rest follows from the divergence theorem, n being outward normals:
//   int x phi = -sum_facets n int phi,    int |x|^2 phi = d int phi - sum_facets p int phi.
#pragma once

#include <algorithm>
#include <cmath>

#include "uniform_source.h"

namespace otgen {

class NormalSource {
 public:
  template <class Facet>
  CellIntegrals<1> integrate(const Interval& cell, const Facet& facet) const {
    const double a = cell.coordinate(0)[0], b = cell.coordinate(0)[1];
    facet(cell.labels()[0], density(a));
    facet(cell.labels()[1], density(b));
    CellIntegrals<1> sum;
    sum.mass = between(a, b);
    sum.first[0] = density(a) - density(b);
    sum.second = sum.mass + a * density(a) - b * density(b);
    return sum;
  }

  template <class Facet>
  CellIntegrals<2> integrate(const Polygon& cell, const Facet& facet) const {
    const int n = cell.corners();
    const double* x[2] = {cell.coordinate(0), cell.coordinate(1)};
    CellIntegrals<2> sum;
    double angle = 0, beyond = 0, divergence = 0;
    bool far = false;
    for (int k = 0; k < n; ++k) {
      const int next = k + 1 < n ? k + 1 : 0;
      double t[2] = {x[0][next] - x[0][k], x[1][next] - x[1][k]};
      const bool sharp = std::hypot(t[0], t[1]) > kSharp;
      if (!normalise(t)) {
        facet(cell.labels()[k], 0.0);
        continue;
      }
      const double normal[2] = {t[1], -t[0]};
      const double q = x[0][k] * normal[0] + x[1][k] * normal[1];
      const double from = x[0][k] * t[0] + x[1][k] * t[1], to = x[0][next] * t[0] + x[1][next] * t[1];
      const double mass = density(q) * between(from, to);
      facet(cell.labels()[k], mass);
      for (int axis = 0; axis < 2; ++axis) sum.first[axis] -= normal[axis] * mass;
      divergence += q * mass;
      far |= sharp && q < -kFar;
      angle += turn(q, from, to);
      beyond += over_angle(q, from, to, [&](double s) { return std::exp(-0.5 * (q * q + s * s)); });
    }
    sum.mass = std::max(0.0, (far ? -beyond : angle - beyond) / (2 * kPi));
    sum.second = 2 * sum.mass - divergence;
    return sum;
  }

  template <class Facet>
  CellIntegrals<3> integrate(const Polyhedron& cell, const Facet& facet) const {
    const double* x[3] = {cell.coordinate(0), cell.coordinate(1), cell.coordinate(2)};
    CellIntegrals<3> sum;
    double solid = 0, beyond = 0, divergence = 0;
    bool far = false;
    for (int k = 0; k < cell.faces(); ++k) {
      int size;
      const int* loop = cell.face(k, size);
      double normal[3];
      const double length = newell(x, loop, size, normal);
      // The cone over a face, and what lies beyond it, weigh no more than its area; the normal of a sliver is noise.
      const double twice_area = std::hypot(normal[0], normal[1], normal[2]);
      if (twice_area <= kSliver * length || !normalise(normal)) {
        facet(cell.labels()[k], 0.0);
        continue;
      }
      double p = 0;
      for (int i = 0; i < size; ++i)
        for (int axis = 0; axis < 3; ++axis) p += x[axis][loop[i]] * normal[axis];
      p /= size;
      double angle = 0, in_plane = 0, cone = 0, seen = 0;
      for (int i = 0; i < size; ++i) {
        const int a = loop[i], b = loop[i + 1 < size ? i + 1 : 0];
        double t[3] = {x[0][b] - x[0][a], x[1][b] - x[1][a], x[2][b] - x[2][a]};
        // Of an edge as short as rounding only the part within the face's plane means anything.
        const double out = t[0] * normal[0] + t[1] * normal[1] + t[2] * normal[2];
        for (int axis = 0; axis < 3; ++axis) t[axis] -= out * normal[axis];
        if (!normalise(t)) continue;
        const double side[3] = {t[1] * normal[2] - t[2] * normal[1], t[2] * normal[0] - t[0] * normal[2],
                                t[0] * normal[1] - t[1] * normal[0]};
        double q = 0, from = 0, to = 0;
        for (int axis = 0; axis < 3; ++axis) {
          q += x[axis][a] * side[axis];
          from += x[axis][a] * t[axis], to += x[axis][b] * t[axis];
        }
        const double square = p * p + q * q, height = std::abs(p);
        angle += turn(q, from, to);
        seen += turn(q, height * from / std::sqrt(square + from * from), height * to / std::sqrt(square + to * to));
        in_plane += over_angle(q, from, to, [&](double s) { return std::exp(-0.5 * (q * q + s * s)); });
        cone += over_angle(q, from, to, [&](double s) {
          const double r = std::sqrt(square + s * s);
          return height / r * std::erfc(kRoot * r);
        });
      }
      const double mass = density(p) * std::max(0.0, (angle - in_plane) / (2 * kPi));
      facet(cell.labels()[k], mass);
      for (int axis = 0; axis < 3; ++axis) sum.first[axis] -= normal[axis] * mass;
      divergence += p * mass;
      far |= twice_area > kSharp * length && p < -kFar;
      if (p == 0) continue;  // the cone is flat
      const double sign = p < 0 ? -1.0 : 1.0;
      solid += sign * (angle - seen);
      beyond += sign * (std::erfc(kRoot * std::abs(p)) * angle - cone);
    }
    sum.mass = std::max(0.0, (far ? -beyond : solid - beyond) / (4 * kPi));
    sum.second = 3 * sum.mass - divergence;
    return sum;
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;
  // A cell at least so far from the origin is seen under no angle, and may have a mass far below rounding. The angles
  // of a nearer one add up to 0, 1 or, on the boundary, to a part of a turn, but not exactly: near an edge they take up
  // the rounding of distances, which the integrals over the same angles then take away again.
  static constexpr double kFar = 0.5;
  static constexpr double kSharp = 1e-8;    // width from which on a facet's plane is known well enough to say so
  static constexpr double kSliver = 1e-13;  // width of a face that may be left out
  static constexpr double kRoot = 0.70710678118654752440;  // 1 / sqrt 2

  static double density(double x) { return 0.39894228040143267794 * std::exp(-0.5 * x * x); }

  // Mass of the interval (a, b) on the line, from the tails that are small.
  static double between(double a, double b) {
    const double sign = a > 0 ? 1.0 : b < 0 ? -1.0 : 0.0;
    if (sign == 0) return 0.5 * (std::erf(kRoot * b) - std::erf(kRoot * a));
    return 0.5 * sign * (std::erfc(sign * kRoot * a) - std::erfc(sign * kRoot * b));
  }

  template <int D>
  static bool normalise(double (&v)[D]) {
    double square = 0;
    for (double c : v) square += c * c;
    if (!(square > 0)) return false;
    for (double& c : v) c /= std::sqrt(square);
    return true;
  }

  // A normal of a face from all of its corners, twice its area long (Newell's formula); returns how long the face is.
  static double newell(const double* const (&x)[3], const int* loop, int size, double (&normal)[3]) {
    std::fill(normal, normal + 3, 0.0);
    double length = 0;
    for (int i = 1; i + 1 < size; ++i) {
      double a[3], b[3];
      for (int axis = 0; axis < 3; ++axis) {
        a[axis] = x[axis][loop[i]] - x[axis][loop[0]];
        b[axis] = x[axis][loop[i + 1]] - x[axis][loop[0]];
      }
      for (int axis = 0; axis < 3; ++axis)
        normal[axis] += a[(axis + 1) % 3] * b[(axis + 2) % 3] - a[(axis + 2) % 3] * b[(axis + 1) % 3];
      length = std::max({length, std::hypot(a[0], a[1], a[2]), std::hypot(b[0], b[1], b[2])});
    }
    return length;
  }

  // The angle under which the origin sees the edge at distance q from `from` to `to`; 0 for a line through it.
  static double turn(double q, double from, double to) {
    return q == 0 ? 0.0 : std::atan(to / q) - std::atan(from / q);
  }

  // The integral of f(s) over the angle atan(s / q), s from `from` to `to`, by Gauss-Legendre on panels no longer than
  // the distance to the nearest singularity, +-i q, nor than what a Gaussian needs.
  template <class F>
  static double over_angle(double q, double from, double to, const F& f) {
    if (q == 0) return 0;
    double total = 0;
    for (double a = from; a < to;) {
      // From below zero a panel must shrink towards zero, where the singularity is nearest.
      const double scale = std::max(std::abs(q), a < 0 ? -0.5 * a : a);
      const double b = std::min(to, a + std::min(scale, kPanel));
      total += gauss_legendre(a, b, scale, [&](double s) { return f(s) * q / (q * q + s * s); });
      a = b;
    }
    return total;
  }

  static constexpr double kPanel = 1.5;

  template <class F>
  static double gauss_legendre(double a, double b, double scale, const F& f) {
    // Positive nodes and weights of the rules with 4, 8 and 16 points.
    static constexpr double kNodes4[] = {0.33998104358485626480, 0.86113631159405257522};
    static constexpr double kWeights4[] = {0.65214515486254614263, 0.34785484513745385737};
    static constexpr double kNodes8[] = {0.18343464249564980494, 0.52553240991632898582, 0.79666647741362673959,
                                         0.96028985649753623168};
    static constexpr double kWeights8[] = {0.36268378337836198297, 0.31370664587788728734, 0.22238103445337447054,
                                           0.10122853629037625915};
    static constexpr double kNodes16[] = {0.09501250983763744019, 0.28160355077925891323, 0.45801677765722738634,
                                          0.61787624440264374845, 0.75540440835500303390, 0.86563120238783174388,
                                          0.94457502307323257608, 0.98940093499164993260};
    static constexpr double kWeights16[] = {0.18945061045506849629, 0.18260341504492358887, 0.16915651939500253819,
                                            0.14959598881657673208, 0.12462897125553387205, 0.09515851168249278481,
                                            0.06225352393864789286, 0.02715245941175409485};
    const double middle = 0.5 * (a + b), half = 0.5 * (b - a);
    const double ratio = half / std::min(scale, 1.0);  // the error falls like ratio^(2 points)
    const int pairs = ratio < 0.02 ? 2 : ratio < 0.2 ? 4 : 8;
    const double* node = pairs == 2 ? kNodes4 : pairs == 4 ? kNodes8 : kNodes16;
    const double* weight = pairs == 2 ? kWeights4 : pairs == 4 ? kWeights8 : kWeights16;
    double sum = 0;
    for (int i = 0; i < pairs; ++i) sum += weight[i] * (f(middle - half * node[i]) + f(middle + half * node[i]));
    return half * sum;
  }
};

}  // namespace otgen
