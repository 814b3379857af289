// The filter on whole numbers: four unsigned bytes of each lane are multiplied by four signed ones, or two signed
// shorts by two, and added to an integer, so that nothing is rounded but the numbers themselves. VNNI does it in one
// instruction. A file includes it after filter.inl, images.inl and peak.inl, and after it has defined
//   Bytes, Shorts   vectors of int32 whose lanes hold these: Lane, what words.inl wants, load, broadcast, store,
//                   mul_add (samples, targets, sum), max, to_float; of shorts add, sub

#include "words.inl"

// Samples become numbers q + zero, with x^ = step q; targets numbers r, with y^ = unit / step r, by group. The heights
// that the sums start at, in units, make up for the zero.
template <class V>
static Vec to_score(V best, const Panels& panels, int64_t g) {
  return mul_add(to_float(best), Vec::broadcast(panels.unit + g), Vec::broadcast(panels.top + g));
}

template <class V>
static void filter_whole(const void* prepared, int64_t bytes, int tiles, const Panels& panels, int64_t first,
                         int64_t last, TileState* states, float* maxima) {
  filter_groups<V>(prepared, bytes, tiles, panels, panels.words, panels.word_h, ceil_div(panels.d, V::kProducts), first,
                   last, states, maxima);
}

template <class V>
static void filter_whole_images(const void* prepared, int images, const Panels& panels, int64_t first, int64_t last,
                                TileState* states, float* maxima) {
  filter_images_of<V>(prepared, images, panels, panels.words, panels.word_h, ceil_div(panels.d, V::kProducts), first,
                      last, states, maxima);
}

// The instruction set `base` with this filter; `other` takes over where it is not meant.
template <class V>
static Isa on_whole(Isa base, const char* name, Meant meant, const Isa& other) {
  base.name = name;
  base.packing = V::kWhole == Whole::kBytes ? Packing::kBytes : Packing::kShorts;
  base.meant = meant, base.other = &other;
  base.filter = filter_whole<V>;
  if constexpr (V::kWhole == Whole::kShorts)
    base.filter_images = filter_whole_images<V>;
  else
    base.filter_images = nullptr;
  base.prepare = prepare_whole<V>;
  base.score_group = score_group, base.narrow = narrow;
  base.pack = pack;
  base.pack_whole = pack_whole<V>;
  base.busy = busy<V>;
  return base;
}
