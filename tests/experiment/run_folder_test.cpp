// The folder of a run without a run: who may write it, and whether a checkpoint fits what stands beside it.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/nn/decoder.hpp>

#include <signal.h>
#include <sys/wait.h>

#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace run_folder_test {
namespace {

experiment_options options_in(std::filesystem::path const& out) {
  experiment_options o;
  o.model.clear();
  o.out = out;
  return o;
}

/// A checkpoint after two steps of a run with `o`, as save_checkpoint_of writes it.
checkpoint checkpoint_of(experiment_options const& o) {
  checkpoint c;
  c.step = 2;
  c.state_json =
      json{{"metrics_lines", 2}, {"completions_lines", 3}, {"causal_lines", 1}, {"options", options_of_checkpoint(o)}}
          .dump();
  return c;
}

void put_lines(std::filesystem::path const& folder) {
  put(folder / "metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  put(folder / "completions.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"step\":2}\n{\"st");
  put(folder / "causal.jsonl", "{\"step\":2}\n");
}

}  // namespace

TEST_CASE("file_lock: a run has one writer at a time, and the lock of a killed process is free") {
  scratch_folder const dir;
  put(dir / "options.json", "{}");
  auto const refused = [&] { return complaint<usage_error>([&] { lock_run_folder(dir.path(), dir.path()); }); };
  {
    file_lock first = lock_run_folder(dir.path(), dir.path());
    CHECK(first.held());
    CHECK(contains(refused(), "--resume " + dir.path().string() + ": another process is writing this run"));
    file_lock const moved = std::move(first);
    CHECK(refused());
  }
  CHECK_FALSE(refused());
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t const child = ::fork();
  if (child == 0) {
    file_lock const held = lock_run_folder(dir.path(), dir.path());
    (void)!::write(ends[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  REQUIRE(::read(ends[0], &byte, 1) == 1);
  CHECK(refused());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK_FALSE(refused());
  ::close(ends[0]);
  ::close(ends[1]);
  CHECK(contains(complaint([&] { file_lock(dir / "none"); }), "none: cannot be opened"));
}

TEST_CASE("run_folder: a new run's folder is locked when it appears, and never replaces another one") {
  scratch_folder const dir;
  auto const o = options_in(dir / "runs/a");
  {
    file_lock const lock = create_run_folder(o, o.task);
    CHECK(lock.held());
    CHECK(contains(complaint<usage_error>([&] { lock_run_folder(o.out, o.out); }), "another process"));
  }
  auto const before = content(o.out / "options.json");
  auto other = o;
  other.seed = 99;
  // Both looked at the empty place before either made its folder.
  CHECK(contains(complaint<usage_error>([&] { create_run_folder(other, other.task); }), "is not empty"));
  CHECK(content(o.out / "options.json") == before);
  CHECK(std::distance(std::filesystem::directory_iterator(dir / "runs"), {}) == 1);
  std::filesystem::create_directories(dir / "runs/empty");
  CHECK_NOTHROW(create_run_folder(options_in(dir / "runs/empty"), "arithmetic"));
}

TEST_CASE("run_folder: a run goes on with files of the content that it began with, wherever they are") {
  scratch_folder const dir;
  auto o = options_in(dir / "run");
  o.model = dir / "model.gguf";
  put(o.model, "weights");
  create_run_folder(o, o.task);
  CHECK(read_json_file(o.out / "inputs.json").size() == 1);  // no data, no adapter
  CHECK_NOTHROW(check_inputs(o));
  std::filesystem::rename(o.model, dir / "moved.gguf");
  o.model = dir / "moved.gguf";
  CHECK_NOTHROW(check_inputs(o));
  put(o.model, "Weights");
  auto const refused = [&] { return complaint<usage_error>([&] { check_inputs(o); }); };
  CHECK(contains(refused(), "run: by its inputs.json the content of --model is not what the run began with"));
  put(o.out / "inputs.json", "[]");
  CHECK(contains(refused(), "--model"));
  std::filesystem::remove(o.out / "inputs.json");  // a run of an older version
  CHECK_NOTHROW(check_inputs(o));
}

TEST_CASE("run_folder: a place where no folder can be made is refused before the work") {
  scratch_folder const dir;
  put(dir / "file", "x");
  put(dir / "used", "x");
  auto const refused = [&](std::filesystem::path const& out) {
    return complaint<usage_error>([&] { check_fresh(out); });
  };
  CHECK_FALSE(refused(dir / "new/run"));
  CHECK_FALSE(std::filesystem::exists(dir / "new"));
  CHECK(contains(refused(""), "--out is missing"));
  CHECK(contains(refused(dir / "file"), "--out " + (dir / "file").string() + ": exists and is not a folder"));
  CHECK(contains(refused(dir / "file/run"), "--out"));
  CHECK(contains(refused(dir / std::string(300, 'n')), "File name too long"));
  CHECK(contains(refused(dir.path()), "is not empty"));
  std::filesystem::create_symlink("loop", dir / "loop");
  CHECK(contains(refused(dir / "loop"), "--out"));
  CHECK(contains(complaint<usage_error>([&] { stored_options(dir / std::string(300, 'n')); }), "--resume"));
}

TEST_CASE("run_folder: a checkpoint goes on under the options that it was made with, and names the one that changed") {
  scratch_folder const dir;
  auto const o = options_in(dir.path());
  put_lines(dir.path());
  checkpoint const c = checkpoint_of(o);
  auto const check = [&](checkpoint const& with, experiment_options const& now) {
    return complaint<usage_error>([&] { check_continuation(dir.path(), with, "step-000002.checkpoint", now); });
  };
  CHECK_FALSE(check(c, o));
  auto changed = o;
  changed.learning_rate = 0.5;
  auto const sentence = check(c, changed);
  CHECK(contains(sentence, "options.json: lr is 0.5, but step-000002.checkpoint was made with 2e-05"));
  CHECK(std::count(sentence->begin(), sentence->end(), '\n') == 0);
  changed = o;
  changed.steps = 7;
  CHECK(contains(check(c, changed), "steps is 7"));
  changed = o;
  changed.mask.lower_clamp = -3;
  CHECK(contains(check(c, changed), "mask-lower-clamp is -3.0, but step-000002.checkpoint was made with \"none\""));
  // What a folder is called, and the threads, change nothing.
  changed = o;
  changed.threads = 3;
  changed.model = "moved/model";
  changed.out = "moved/run";
  changed.data = "moved/data";
  CHECK_FALSE(check(c, changed));
  // Checkpoints from before they knew their options, and from before an option was there.
  checkpoint old = c;
  json state = parse_json(c.state_json, "state");
  state["options"].erase("lr");
  old.state_json = state.dump();
  changed = o;
  changed.learning_rate = 0.5;
  CHECK_FALSE(check(old, changed));
  state.erase("options");
  old.state_json = state.dump();
  CHECK_FALSE(check(old, changed));
}

TEST_CASE("run_folder: the lines that a checkpoint counts on are looked at, and the files stay as they are") {
  scratch_folder const dir;
  auto const o = options_in(dir.path());
  checkpoint const c = checkpoint_of(o);
  auto const with = [&](char const* name, std::string const& text) {
    put_lines(dir.path());
    put(dir / name, text);
    auto const sentence = complaint([&] { check_continuation(dir.path(), c, "the checkpoint", o); });
    CHECK(content(dir / name) == text);
    return sentence;
  };
  CHECK_FALSE(with("metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n"));
  CHECK(contains(with("metrics.jsonl", "{\"step\":1}\n{\"step\":2}"), "metrics.jsonl: has 1 complete lines but 2"));
  CHECK(contains(with("metrics.jsonl", "{\"step\":1}\n{\"step\":3}\n"), "metrics.jsonl:2: is of another step"));
  CHECK(contains(with("metrics.jsonl", std::string("{\"step\":1}\n\0\0\0\n{\"step\":3}\n", 29)),
                 "metrics.jsonl:2: not valid JSON"));
  CHECK(contains(with("completions.jsonl", "{\"step\":1}\n"), "completions.jsonl: has 1 complete lines but 3"));
  CHECK(contains(with("completions.jsonl", "{\"step\":1}\n3\n{\"step\":2}\n"), "completions.jsonl:2: names no step"));
  CHECK(contains(with("causal.jsonl", ""), "causal.jsonl: has 0 complete lines but 1"));
  checkpoint damaged = c;
  damaged.state_json = "{}";
  CHECK(contains(complaint([&] { check_continuation(dir.path(), damaged, "the checkpoint", o); }),
                 "the checkpoint: its state is wrong"));
}

}  // namespace run_folder_test
