// Whole runs by several ranks, here threads of one process: what is written has the same bytes for any number of them.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/experiment/experiment.hpp>

#include "catch.hpp"
#include "cut_run.hpp"
#include "run_setting.hpp"

#include <functional>
#include <map>

using namespace atmanrl;
using namespace atmanrl_test;

namespace multi_rank_run_test {
namespace {

struct setting {
  scratch_folder folder;
  std::filesystem::path model = folder / "model";
  setting() { write_random_model(model, random_config()); }
};

/// \param alter  of rank r's options
void run(experiment_options const& o, int ranks, std::function<void(int, experiment_options&)> const& alter = {}) {
  comm::threads::run(ranks, [&](comm::threads& c) {
    experiment_options mine = o;
    if (alter) alter(c.rank(), mine);
    int const status = experiment<gsm8k_traits<>>(mine, c).run();
    expects(status == 0, "rank {} of {} ends with status {}", c.rank(), ranks, status);
  });
}

/// What a run leaves behind, but for times, the options' paths and the page.
std::map<std::string, std::string> files_of(std::filesystem::path const& out) {
  std::map<std::string, std::string> files;
  for (auto const& each : std::filesystem::recursive_directory_iterator(out)) {
    std::string const name = each.path().lexically_relative(out).string();
    if (each.is_regular_file() && name != "timings.jsonl" && name != "options.json" && name != "report.html" &&
        !name.starts_with("events.") && !name.starts_with("checkpoints"))
      files[name] = content(each.path());
  }
  return files;
}

std::string sentence_of(std::function<void()> const& f) {
  try {
    f();
  } catch (std::exception const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

void check_same(std::map<std::string, std::string> const& found, std::map<std::string, std::string> const& wanted) {
  CHECK(found.size() == wanted.size());
  for (auto const& [name, bytes] : wanted) {
    INFO(name);
    REQUIRE(found.contains(name));
    CHECK((found.at(name) == bytes));
  }
}

}  // namespace

TEST_CASE("experiment over ranks: the files of one rank, with masks, adapters, a KL term and dynamic sampling") {
  setting const s;
  struct variant {
    char const* name;
    void (*change)(experiment_options&);
    std::map<int, gradient_memory_options> gradient;  // by the number of ranks; else whole
  };
  for (variant const& v : std::initializer_list<variant>{
           {"masks",
            [](experiment_options& o) { o.saliency_share = 0.5; },
            {{3, {gradient_memory::layers}}, {4, {gradient_memory::layers, true}}}},
           {"adapters",
            [](experiment_options& o) {
              o.lora_rank = 2, o.advantage = "gdpo", o.optimizer = "sgd", o.optimizer_settings.momentum = 0;
            },
            {{2, {gradient_memory::layers}}}},
           {"reference",
            [](experiment_options& o) { o.beta = 0.1, o.advantage = "batch_normalized"; },
            {{2, {gradient_memory::slices, true}}}},
           {"dynamic",
            [](experiment_options& o) { o.dynamic_sampling_rounds = 2, o.optimizer = "muon"; },
            {{3, {gradient_memory::slices}}}}}) {
    INFO(v.name);
    experiment_options o = short_run(s.model, s.folder / fmt::format("{}-1", v.name));
    o.prompts_per_step = 3;
    v.change(o);
    run(o, 1);
    auto const wanted = files_of(o.out);
    CHECK(wanted.contains("metrics.jsonl"));
    CHECK(wanted.contains("causal.jsonl"));
    CHECK(wanted.contains(o.lora_rank > 0 ? "adapter/adapter_model.safetensors" : "model/model.safetensors"));
    for (int const ranks : {2, 3, 4}) {
      INFO(ranks << " ranks");
      o.out = s.folder / fmt::format("{}-{}", v.name, ranks);
      o.gradient = v.gradient.contains(ranks) ? v.gradient.at(ranks) : gradient_memory_options{};
      REQUIRE_NOTHROW(run(o, ranks, [](int rank, experiment_options& mine) { mine.threads = 1 + rank % 2; }));
      check_same(files_of(o.out), wanted);
    }
  }
}

TEST_CASE("experiment over ranks: a run that was killed goes on with another number of them, with the same files") {
  setting const s;
  experiment_options o = short_run(s.model, s.folder / "whole");
  o.prompts_per_step = 3;
  run(o, 3);
  auto const wanted = files_of(o.out);
  for (int const ranks : {1, 2, 4}) {
    INFO(ranks << " ranks");
    experiment_options resumed = o;
    if (ranks > 1) resumed.gradient = {ranks == 2 ? gradient_memory::layers : gradient_memory::slices, ranks == 4};
    resumed.resume = cut_copy(s.folder / "whole", s.folder / fmt::format("cut-{}", ranks));
    resumed.out.clear();
    REQUIRE_NOTHROW(run(resumed, ranks));
    check_same(files_of(resumed.resume), wanted);
  }
}

TEST_CASE("experiment over ranks: other options, files or models on a rank are refused, and nothing is written") {
  setting const s;
  experiment_options const o = short_run(s.model, s.folder / "refused");
  auto const other_options =
      sentence_of([&] { run(o, 3, [](int rank, experiment_options& mine) { mine.seed += rank == 2; }); });
  CHECK_THAT(other_options, ATMANRL_CONTAINS("the options: rank 2 differs from rank 0"));
  CHECK_THAT(other_options, ATMANRL_CONTAINS("seed"));
  auto const other_memory = sentence_of([&] {
    run(o, 2, [](int rank, experiment_options& mine) {
      if (rank == 1) mine.gradient.kept = gradient_memory::layers;
    });
  });
  CHECK_THAT(other_memory, ATMANRL_CONTAINS("the options: rank 1 differs from rank 0"));
  std::filesystem::copy(s.model, s.folder / "other", std::filesystem::copy_options::recursive);
  std::string weights = content(s.folder / "other" / "model.safetensors");
  weights.back() = char(weights.back() ^ 1);
  write_file_atomically(s.folder / "other" / "model.safetensors", weights);
  auto const other_files = sentence_of([&] {
    run(o, 2, [&](int rank, experiment_options& mine) {
      if (rank == 1) mine.model = s.folder / "other";
    });
  });
  CHECK_THAT(other_files, ATMANRL_CONTAINS("the hash of the files: rank 1 differs from rank 0"));
  auto const missing = sentence_of([&] {
    run(o, 2, [&](int rank, experiment_options& mine) {
      if (rank == 1) mine.model = s.folder / "nowhere";
    });
  });
  CHECK_THAT(missing, ATMANRL_CONTAINS("nowhere"));
  CHECK_FALSE(std::filesystem::exists(o.out));
}

}  // namespace multi_rank_run_test
