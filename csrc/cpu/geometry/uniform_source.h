// Integrals of the uniform density over power cells and their facets.
#pragma once

#include <algorithm>
#include <cmath>

#include "interval.h"
#include "polygon.h"
#include "polyhedron.h"

namespace otgen {

// Integrals over a cell of the source's density: of 1, of x and of |x|^2.
template <int D>
struct CellIntegrals {
  double mass = 0, first[D] = {}, second = 0;
};

// The uniform source on a convex body of volume 1 / density. `facet(label, measure)` is told the integral over each
// facet. Sums are taken about the cell's first corner, so that small cells keep their digits.
struct UniformSource {
  double density;

  template <class Facet>
  CellIntegrals<1> integrate(const Interval& cell, const Facet& facet) const {
    const double a = cell.coordinate(0)[0], length = cell.coordinate(0)[1] - a;
    facet(cell.labels()[0], density);
    facet(cell.labels()[1], density);
    CellIntegrals<1> sum;
    sum.mass = length, sum.first[0] = length * length / 2;
    return shift(sum, length * length * length / 3, {a});
  }

  template <class Facet>
  CellIntegrals<2> integrate(const Polygon& cell, const Facet& facet) const {
    const int n = cell.corners();
    const double *x0 = cell.coordinate(0), *x1 = cell.coordinate(1);
    CellIntegrals<2> sum;
    double about = 0;  // of |x - corner 0|^2
    for (int k = 0; k < n; ++k) {
      const int next = k + 1 < n ? k + 1 : 0;
      const double a0 = x0[k] - x0[0], a1 = x1[k] - x1[0], b0 = x0[next] - x0[0], b1 = x1[next] - x1[0];
      facet(cell.labels()[k], density * std::hypot(b0 - a0, b1 - a1));
      const double area = 0.5 * (a0 * b1 - a1 * b0);
      sum.mass += area;
      sum.first[0] += area * (a0 + b0) / 3, sum.first[1] += area * (a1 + b1) / 3;
      about += area * (a0 * a0 + a1 * a1 + b0 * b0 + b1 * b1 + a0 * b0 + a1 * b1) / 6;
    }
    return shift(sum, about, {x0[0], x1[0]});
  }

  template <class Facet>
  CellIntegrals<3> integrate(const Polyhedron& cell, const Facet& facet) const {
    const double* x[3] = {cell.coordinate(0), cell.coordinate(1), cell.coordinate(2)};
    CellIntegrals<3> sum;
    double about = 0;
    for (int k = 0; k < cell.faces(); ++k) {
      int size;
      const int* loop = cell.face(k, size);
      double normal[3] = {};
      for (int i = 1; i + 1 < size; ++i) {  // triangles (a, b, c) of a fan, each with corner 0 a tetrahedron
        double a[3], b[3], c[3], ab[3], ac[3];
        for (int axis = 0; axis < 3; ++axis) {
          a[axis] = x[axis][loop[0]] - x[axis][0];
          b[axis] = x[axis][loop[i]] - x[axis][0];
          c[axis] = x[axis][loop[i + 1]] - x[axis][0];
          ab[axis] = b[axis] - a[axis], ac[axis] = c[axis] - a[axis];
        }
        const double cross[3] = {ab[1] * ac[2] - ab[2] * ac[1], ab[2] * ac[0] - ab[0] * ac[2],
                                 ab[0] * ac[1] - ab[1] * ac[0]};
        const double volume = (a[0] * cross[0] + a[1] * cross[1] + a[2] * cross[2]) / 6;
        sum.mass += volume;
        for (int axis = 0; axis < 3; ++axis) {
          const double s = a[axis] + b[axis] + c[axis];
          normal[axis] += cross[axis];
          sum.first[axis] += volume * s / 4;
          about += volume * (s * s + a[axis] * a[axis] + b[axis] * b[axis] + c[axis] * c[axis]) / 20;
        }
      }
      facet(cell.labels()[k], density * 0.5 * std::hypot(normal[0], normal[1], normal[2]));
    }
    return shift(sum, about, {x[0][0], x[1][0], x[2][0]});
  }

 private:
  // From sums about a point to sums about the origin: |x|^2 = |x - o|^2 + <o, 2 (x - o) + o>.
  template <int D>
  CellIntegrals<D> shift(CellIntegrals<D> sum, double about, const double (&o)[D]) const {
    sum.mass = density * std::max(sum.mass, 0.0);  // a sliver may come out at minus its rounding
    sum.second = density * about;
    for (int axis = 0; axis < D; ++axis) {
      sum.first[axis] *= density;
      sum.second += o[axis] * (2 * sum.first[axis] + o[axis] * sum.mass);
      sum.first[axis] += o[axis] * sum.mass;
    }
    return sum;
  }
};

}  // namespace otgen
