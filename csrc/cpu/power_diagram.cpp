// power_diagram: exact power cells in one, two and three dimensions, and what the source has on them.
#include <numeric>
#include <span>
#include <vector>

#include "cpu.h"
#include "geometry/normal_source.h"
#include "geometry/power_cell.h"
#include "geometry/uniform_source.h"
#include "threads.h"

namespace otgen {

namespace {

constexpr int64_t kBlock = 256;  // cells that a thread makes at a time

// Calls f(domain, source) with a body and a source of the types that the dimension and the source's name ask for.
template <class F>
void with_domain(const PowerDomain& domain, int d, const F& f) {
  const auto of_source = [&](const auto& body) {
    if (domain.source == Source::kNormal) return f(body, NormalSource{});
    const auto nobody = [](int64_t, double) {};
    f(body, UniformSource{1 / UniformSource{1}.integrate(body, nobody).mass});
  };
  const double* x = domain.corners;
  if (d == 1) return of_source(Interval(x[0], x[1]));
  if (d == 3) return of_source(Polyhedron(x, x + 3));
  Polygon body;
  for (int64_t k = 0; k < domain.count; ++k) body.add(x[2 * k], x[2 * k + 1], -1 - k);
  of_source(body);
}

// Pairs of targets by one of them: positions in the tree.
class Near {
 public:
  Near(const SiteTree& tree, const int64_t* pairs, int64_t count) : ends_(size_t(tree.size() + 1)) {
    const auto each = [&](const auto& f) {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t i = tree.position(pairs[2 * k]), j = tree.position(pairs[2 * k + 1]);
        f(i, j), f(j, i);
      }
    };
    each([&](int64_t i, int64_t) { ++ends_[size_t(i + 1)]; });
    std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
    all_.resize(size_t(2 * count));
    each([&](int64_t i, int64_t j) { all_[size_t(ends_[size_t(i)]++)] = j; });  // where one begins becomes its end
  }

  std::span<const int64_t> of(int64_t position) const {
    const size_t first = position == 0 ? 0 : size_t(ends_[size_t(position - 1)]);
    return {all_.data() + first, size_t(ends_[size_t(position)]) - first};
  }

 private:
  std::vector<int64_t> ends_, all_;
};

}  // namespace

void power_diagram_cpu(const PowerDiagramParams& p) {
  const SiteTree& tree = p.tree;
  const int64_t blocks = ceil_div(tree.size(), kBlock);
  std::vector<std::vector<Facet>> facets(static_cast<size_t>(blocks));
  const Near near(tree, p.near, p.near_count);
  with_domain(p.domain, tree.dim(), [&](const auto& domain, const auto& source) {
    using Body = std::decay_t<decltype(domain)>;
    parallel_for(blocks, p.run, [&](int64_t b, int) {
      PowerCell<Body> maker(tree);
      for (int64_t at = b * kBlock; at < std::min(tree.size(), (b + 1) * kBlock); ++at) {
        const Body& cell = maker.make(domain, at, near.of(at));
        const int64_t j = tree.number(at);
        CellIntegrals<Body::kDim> sum;
        if (!cell.empty())
          sum = source.integrate(cell, [&](int64_t label, double measure) {
            if (label >= 0 && j < tree.number(label) && measure > 0)
              facets[b].push_back({j, tree.number(label), measure});
          });
        if (p.least != nullptr && sum.mass < p.least[j]) throw SmallCell{};
        p.measures[j] = sum.mass;
        for (int axis = 0; axis < Body::kDim; ++axis) p.first[j * Body::kDim + axis] = sum.first[axis];
        p.second[j] = sum.second;
      }
    });
  });
  size_t total = 0;
  for (const auto& part : facets) total += part.size();
  p.pairs.reserve(2 * total), p.facets.reserve(total);
  for (const auto& part : facets)
    for (const Facet& facet : part) {
      p.pairs.push_back(facet.i), p.pairs.push_back(facet.j);
      p.facets.push_back(facet.measure);
    }
}

void power_cells_cpu(const PowerCellsParams& p) {
  with_domain(p.domain, p.tree.dim(), [&](const auto& domain, const auto&) {
    using Body = std::decay_t<decltype(domain)>;
    PowerCell<Body> maker(p.tree);
    for (int64_t c = 0; c < p.count; ++c) {
      const Body& cell = maker.make(domain, p.tree.position(p.which[c]));
      for (int k = 0; k < cell.corners(); ++k)
        for (int axis = 0; axis < Body::kDim; ++axis) p.corners.push_back(cell.coordinate(axis)[k]);
      for (const int64_t label : cell.labels()) p.labels.push_back(label < 0 ? label : p.tree.number(label));
      if constexpr (Body::kDim == 3)
        for (int k = 0; k < cell.faces(); ++k) {
          int size;
          const int* loop = cell.face(k, size);
          p.loops.insert(p.loops.end(), loop, loop + size);
          p.loop_sizes.push_back(size);
        }
      p.sizes.push_back(cell.corners());
      p.sizes.push_back(int64_t(cell.labels().size()));
    }
  });
}

}  // namespace otgen
