#pragma once

/// \file
/// The files that a run reads, known again when it goes on by a hash of their content.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/content_hash.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/paths.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Of the model, the data and the adapter, where there are such.
inline json input_hashes(experiment_options const& o) {
  json out = json::object();
  auto const add = [&](char const* name, std::filesystem::path const& path) {
    if (!path.empty()) out[name] = fmt::format("{:016x}", content_hash(path));
  };
  return add("model", o.model), add("data", o.data), add("adapter", o.adapter), out;
}

/// \throws usage_error that names what is another than the run began with; a run of an older version does not know
inline void check_inputs(experiment_options const& o) {
  if (!is_there(o.out / "inputs.json")) return;
  json const then = read_json_file(o.out / "inputs.json"), now = input_hashes(o);
  for (auto const& [name, hash] : now.items())
    expects<usage_error>(then.contains(name) && then[name] == hash,
                         "--resume {}: by its inputs.json the content of --{} is not what the run began with",
                         o.out.string(), name);
}

}  // namespace atmanrl::inline ATMANRL_ABI
