#pragma once

/// \file
/// What one use of a model needs beside its weights, and how a model lends it.

#include <atmanrl/nn/forward_pass.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/workspace.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <Backend B, class T>
struct cache_and_pass {
  kv_cache<B, T> cache;
  forward_pass<B, T> pass;
};

/// An empty cache of `rows` rows and a forward pass, in memory that earlier borrowers have left.
/// \param recompute  see forward_pass::set_recompute
/// \param new_cache  `kv_cache<B, T> new_cache(index_t rows)`, called where nobody has left one
template <class T, Backend B, class NewCache>
borrowed<cache_and_pass<B, T>> borrow_pass(workspace& memory, B& backend, index_t rows, bool recompute,
                                           NewCache&& new_cache) {
  auto space = memory.borrow<cache_and_pass<B, T>>([&] {
    return cache_and_pass<B, T>{new_cache(rows), forward_pass<B, T>(backend)};
  });
  space->cache.reset(rows);
  space->pass.set_recompute(recompute);
  return space;
}

}  // namespace atmanrl::inline ATMANRL_ABI
