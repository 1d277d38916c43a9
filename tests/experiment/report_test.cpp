// The pages: what a reader sees equals the files, nothing of a model's text becomes markup, nothing is loaded from
// elsewhere.
#include <atmanrl/evaluation/evaluation.hpp>
#include <atmanrl/report/explain_page.hpp>
#include <atmanrl/report/run_data.hpp>
#include <atmanrl/report/run_page.hpp>

#include <array>
#include <set>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace report_test {
namespace {

/// The first mistake in the nesting of a page's tags, or nothing. Strict on purpose: quoted attributes, no stray "<" or
/// "&", every id once, every link inside the page to an id that is there.
std::string markup_mistake(std::string_view page) {
  static std::set<std::string, std::less<>> const empty{"meta", "br", "!DOCTYPE"};
  static std::set<std::string, std::less<>> const raw{"style", "script"};
  std::vector<std::string> open;
  std::set<std::string, std::less<>> ids, links;
  auto const complain = [&](std::size_t at, std::string const& what) {
    return what + " at: " + std::string(page.substr(at, 80));
  };
  auto const entities = [&](std::string_view text) {
    for (std::size_t at = 0; (at = text.find('&', at)) != std::string_view::npos; ++at) {
      bool known = false;
      for (char const* e : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
        known = known || text.substr(at).starts_with(e);
      if (!known) return false;
    }
    return true;
  };
  std::size_t at = 0;
  while (at < page.size()) {
    if (page[at] != '<') {
      std::size_t const end = std::min(page.find('<', at), page.size());
      std::string_view const text = page.substr(at, end - at);
      if (!entities(text) || text.find('>') != std::string_view::npos) return complain(at, "stray character");
      at = end;
      continue;
    }
    std::size_t const tag = at++;
    bool const closing = at < page.size() && page[at] == '/';
    if (closing) ++at;
    std::size_t const name_end = page.find_first_of(" />\n", at);
    if (name_end == std::string_view::npos) return complain(tag, "unfinished tag");
    std::string const name(page.substr(at, name_end - at));
    if (name.empty() || (!std::isalpha(static_cast<unsigned char>(name[0])) && name != "!DOCTYPE"))
      return complain(tag, "no tag name");
    at = name_end;
    bool closed = false;
    while (at < page.size() && page[at] != '>') {
      if (page[at] == ' ' || page[at] == '\n')
        ++at;
      else if (page[at] == '/')
        closed = true, ++at;
      else {
        std::size_t const attribute_end = page.find_first_of("=> ", at);
        if (attribute_end == std::string_view::npos) return complain(tag, "unfinished attribute");
        std::string_view const attribute = page.substr(at, attribute_end - at);
        if (name == "!DOCTYPE") {
          at = attribute_end;
          continue;
        }
        if (page[attribute_end] != '=' || page[attribute_end + 1] != '"')
          return complain(tag, "attribute without quotes");
        std::size_t const value_end = page.find('"', attribute_end + 2);
        if (value_end == std::string_view::npos) return complain(tag, "unfinished value");
        std::string_view const value = page.substr(attribute_end + 2, value_end - attribute_end - 2);
        if (!entities(value) || value.find('<') != std::string_view::npos) return complain(tag, "bad value");
        if (attribute.starts_with("on") || attribute == "src" || attribute == "style")
          return complain(tag, "attribute " + std::string(attribute));
        if (attribute == "id" && !ids.insert(std::string(value)).second) return complain(tag, "id twice");
        if (attribute == "href") {
          if (!value.starts_with('#')) return complain(tag, "link out of the page");
          links.insert(std::string(value.substr(1)));
        }
        if (attribute == "aria-labelledby") links.insert(std::string(value));
        at = value_end + 1;
      }
    }
    ++at;
    if (closing) {
      if (open.empty() || open.back() != name)
        return complain(tag, "</" + name + "> closes <" + (open.empty() ? "" : open.back()) + ">");
      open.pop_back();
    } else if (raw.contains(name)) {
      std::size_t const end = page.find("</" + name + ">", at);
      if (end == std::string_view::npos) return complain(tag, "unfinished " + name);
      at = end + name.size() + 3;
    } else if (!closed && !empty.contains(name)) {
      open.push_back(name);
    }
  }
  if (!open.empty()) return "<" + open.back() + "> is not closed";
  for (std::string const& l : links)
    if (!ids.contains(l)) return "there is no id " + l;
  return {};
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++n;
  return n;
}

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

json metrics_line(int step, double reward) {
  return {{"step", step},
          {"reward", reward},
          {"rewards/correct_answer/mean", -0.5},
          {"rewards/saliency/mean", 0.25 * step},
          {"accuracy/strict", 0.5},
          {"accuracy/flexible", 0.625},
          {"completions/mean_length", 40.5},
          {"completions/min_length", 3},
          {"completions/max_length", 90},
          {"saliency/re_enabled/mean", nullptr},
          {"kl", 0.001 * step},
          {"causal/deletion_auc", 0.1 * step},
          {"passes", {{"loss", {1, 2}}}}};
}

json completion_line(int step, int group, int member, double reward) {
  return {{"step", step},
          {"group", group},
          {"member", member},
          {"item", "item-" + std::to_string(group)},
          {"prompt", "2 + 2?"},
          {"text", "Then 4. #### 4"},
          {"truth", "4"},
          {"extracted", "4"},
          {"correct_strict", true},
          {"correct_flexible", true},
          {"truncated", false},
          {"reward", reward},
          {"rewards", {{"correct_answer", 0}, {"saliency", reward}}},
          {"advantage", reward - 0.5},
          {"saliency", {{"tokens", {"Then", " 4", "."}}, {"values", {0.125, 0.875, -0.0625}}}}};
}

/// Of two samples for each question.
evaluation evaluation_with(std::vector<int> const& correct, std::uint64_t seed = 7) {
  evaluation e;
  e.samples = 2;
  e.seed = seed;
  for (int const right : correct) {
    question_result q;
    q.id = fmt::format("q{}", e.per_question.size());
    q.correct = right;
    q.tokens = q.cot_tokens = 3;
    e.per_question.push_back(std::move(q));
  }
  summarize(e);
  return e;
}

/// A run of `steps` steps with two groups of three.
struct run_on_disk {
  scratch_folder scratch;
  std::filesystem::path folder = scratch / "run";
  explicit run_on_disk(int steps) {
    std::filesystem::create_directories(folder);
    put(folder / "options.json",
        json{{"preset", "demo"}, {"model", "models/tiny"}, {"task", "arithmetic"}, {"steps", steps}, {"lr", 1e-5}}
            .dump());
    std::string metrics, completions;
    for (int s = 1; s <= steps; ++s) {
      metrics += dump_json(metrics_line(s, -0.111222333 * s)) + "\n";
      for (int g = 0; g < 2; ++g)
        for (int m = 0; m < 3; ++m) completions += dump_json(completion_line(s, g, m, 0.5 * m)) + "\n";
    }
    put(folder / "metrics.jsonl", metrics);
    put(folder / "completions.jsonl", completions);
    put(folder / "evaluation_before.json", to_json(evaluation_with({0, 1, 2, 0})).dump());
    put(folder / "evaluation_after.json", to_json(evaluation_with({1, 2, 2, 0})).dump());
    put(folder / "timings.jsonl",
        R"({"phase":"evaluation_before","seconds":2.5,"tokens":100})"
        "\n"
        R"({"phase":"step","step":1,"sampling":{"seconds":1.5,"tokens":300},"update":{"seconds":90,"tokens":9},"peak_process_bytes":1048576})"
        "\n");
  }
};

std::string const hostile = "<script>alert(1)</script> \"'&amp; \xff\xc3 \x01\x1b\x7f " + std::string(1, '\0') +
                            "\xe2\x80\xae"
                            "evil\xe2\x80\x8b\xc2\x85\xef\xbf\xbf</title></style>";

}  // namespace

TEST_CASE("report: text becomes text, whatever it holds") {
  CHECK(html::escape("a < b && c > \"d\" 'e'") == "a &lt; b &amp;&amp; c &gt; &quot;d&quot; &#39;e&#39;");
  CHECK(html::escape("<script>") == "&lt;script&gt;");
  CHECK(html::escape("&lt;") == "&amp;lt;");
  CHECK(html::escape("\xff|\xc3|\xed\xa0\x80") == "\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(html::escape(std::string_view("\0", 1)) == "\xe2\x90\x80");
  CHECK(html::escape("\x1b\r\x7f") == "\xe2\x90\x9b\xe2\x90\x8d\xe2\x90\xa1");
  CHECK(html::escape("a\n\tb") == "a\n\tb");
  CHECK(html::escape("\xe2\x80\xae\xe2\x81\xa6\xd8\x9c") == "[U+202E][U+2066][U+061C]");
  CHECK(html::escape("\xe2\x80\x8b\xef\xbb\xbf\xc2\x85\xf3\xa0\x81\x81") == "[U+200B][U+FEFF][U+0085][U+E0041]");
  CHECK(html::escape("\xef\xbf\xbe\xef\xb7\x90") == "\xef\xbf\xbd\xef\xbf\xbd");
  CHECK(html::escape("\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac \xd7\xa9\xd7\x9c \xe4\xbd\xa0") ==
        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac \xd7\xa9\xd7\x9c \xe4\xbd\xa0");
  CHECK(html::escape_front("\xc3\xa4\xc3\xb6\xc3\xbc", 2) == "\xc3\xa4\xc3\xb6 <em>[2 further bytes]</em>");
}

TEST_CASE("report: the checker of these tests finds what it is for") {
  CHECK(markup_mistake("<p><b>x</b></p>") == "");
  for (char const* const bad : {"<p><b>x</p></b>", "<p>", "</p>", "<p>a & b</p>", "<p>a > b</p>", "<p class=x></p>",
                                "<a href=\"https://x.org\">x</a>", "<p id=\"a\"></p><p id=\"a\"></p>",
                                "<a href=\"#b\">x</a>", "<p onclick=\"x\"></p>", "<1>"})
    CHECK_FALSE(markup_mistake(bad).empty());
}

TEST_CASE("report: the page of a run is well-formed, loads nothing and has its parts") {
  run_on_disk const run(4);
  write_run_page(run.folder);
  std::string const page = read_text_file(run.folder / "report.html");
  CHECK(markup_mistake(page) == "");
  CHECK(page.find("://") == std::string::npos);
  CHECK(page.find("url(") == std::string::npos);
  CHECK(page.find("@import") == std::string::npos);
  CHECK(has(page, "default-src 'none'"));
  CHECK(count(page, "<h1>") == 1);
  CHECK(has(page, "<title>tiny on arithmetic</title>"));
  CHECK(count(page, "<table") == count(page, "<caption>"));
  CHECK(count(page, "<svg class=\"plot\"") == count(page, "role=\"img\" aria-label="));
  CHECK_FALSE(has(page, "class=\"notes\""));
  for (char const* const id : {"evaluation", "training", "completions", "time", "options"})
    CHECK(has(page, std::string("id=\"") + id + "\""));
  CHECK_FALSE(has(page, "id=\"causal\""));
  CHECK(count(page, ".partial-") == 0);
}

TEST_CASE("report: the numbers of the page are those of the files") {
  run_on_disk const run(4);
  std::string const page = run_page(run.folder);
  // metrics.jsonl: under the pointer and in the table
  CHECK(has(page, "<title>step 3\nreward: -0.333667\ncorrect_answer: -0.5\nsaliency: 0.75</title>"));
  CHECK(has(page, "<td class=\"n\">-0.333667</td>"));
  CHECK(has(page, "strict: 0.5\nflexible: 0.625"));
  CHECK(has(page, "shortest to longest: 3 to 90"));
  CHECK(has(page, "KL: 0.002"));
  CHECK(has(page, "deletion_auc: 0.3"));
  // a column without any value
  CHECK_FALSE(has(page, "<b>Saliency</b>"));
  // evaluation: 3 of 8 right before, 5 after; 0.25 = mean of (1 + 1 + 0 + 0) / 2 samples / 4 questions
  CHECK(has(page, "<th scope=\"row\">accuracy, strict</th><td>0.375 <span class=\"soft\">["));
  CHECK(has(page, "</td><td>0.625 <span class=\"soft\">["));
  CHECK(has(page, "<th scope=\"row\">pass@2</th><td>0.5 "));
  CHECK(has(page, "paired by question: <b>0.25</b>"));
  // completions: best and worst of each group, tokens with their values
  CHECK(count(page, "<th scope=\"row\">best of 3</th>") == 8);
  CHECK(has(page, "<dt>reward</dt><dd><b>1</b></dd><dt>correct_answer</dt><dd>0</dd><dt>saliency</dt><dd>1</dd>"));
  CHECK(has(page, "data-name=\"Advantage\">-0.5</td>"));
  CHECK(count(page, "title=\"0.875\"> 4</span>") == 16);
  CHECK(has(page, "title=\"-0.0625\">.</span><span class=\"rest\"> #### 4</span>"));
  CHECK(has(page, "strongest: <bdi>“ 4”</bdi> 0.875 (token 2), <bdi>“Then”</bdi> 0.125 (token 1)"));
  // timings
  CHECK(has(page,
            "<th scope=\"row\">sampling</th><td class=\"n\">1.5 s</td><td class=\"n\">2 %</td><td "
            "class=\"n\">300</td><td class=\"n\">200</td>"));
  CHECK(has(page, "1 min 30 s"));
}

TEST_CASE("report: the change of strict accuracy is the closing table's, and is not shown of different questions") {
  run_on_disk const run(1);
  evaluation const before = evaluation_with({0, 1, 2, 0, 1, 1, 0, 2, 1, 0, 0, 1, 2}, 77),
                   after = evaluation_with({1, 2, 2, 0, 2, 0, 1, 2, 2, 1, 0, 2, 2}, 77);
  auto const shown = [&](json const& a, json const& b) {
    put(run.folder / "evaluation_before.json", a.dump());
    put(run.folder / "evaluation_after.json", b.dump());
    std::string const page = run_page(run.folder);
    CHECK(markup_mistake(page) == "");
    std::size_t const from = page.find("paired by question: ");
    return from == std::string::npos ? std::string() : page.substr(from, page.find("</p>", from) - from);
  };
  auto const all = differences(before, after);
  auto const strict = std::find_if(all.begin(), all.end(), [](auto const& d) { return d.name == "accuracy_strict"; });
  REQUIRE(strict != all.end());
  interval const d = strict->difference;
  CHECK(shown(to_json(before), to_json(after)) == fmt::format("paired by question: <b>{}</b> [{}, {}].",
                                                              html::number(d.value, 3), html::number(d.low, 3),
                                                              html::number(d.high, 3)));
  evaluation other = after;
  other.per_question[3].id = "another";
  CHECK(shown(to_json(before), to_json(other)).empty());
  CHECK(shown(to_json(before), to_json(evaluation_with({1, 2}))).empty());
  json bad = to_json(after);
  for (json const& value : {json(7), json::array({1, "a"}), json()}) {
    bad["per_question"]["correct"] = value;
    CHECK(shown(to_json(before), bad).empty());
  }
  bad = to_json(before);
  for (json const& value : {json(0), json("b"), json()}) {
    bad["samples"] = value;
    CHECK(shown(bad, to_json(after)).empty());
  }
}

TEST_CASE("report: hostile text in any file stays text") {
  run_on_disk const run(1);
  std::string const safe = to_valid_utf8(hostile);
  auto c = completion_line(1, 0, 0, 1);
  for (char const* const key : {"item", "prompt", "text", "truth", "extracted"}) c[key] = safe;
  c["saliency"]["tokens"] = {safe, "</span>", "\n"};
  c["rewards"] = {{safe, 1}};
  put(run.folder / "completions.jsonl", c.dump() + "\n" + "{\"step\":1,\"item\":\"\xff<script>\n");
  auto m = metrics_line(1, 1);
  m[safe] = 1;
  m["rewards/" + safe + "/mean"] = 1;
  put(run.folder / "metrics.jsonl", m.dump() + "\n");
  put(run.folder / "options.json", json{{"model", safe}, {"task", safe}, {safe, safe}}.dump());
  json e = to_json(evaluation_with({1}));
  e[safe] = e["accuracy_strict"];
  put(run.folder / "evaluation_after.json", e.dump());
  put(run.folder / "timings.jsonl", json{{"phase", safe}, {"seconds", 1}}.dump());
  put(run.folder / "causal.jsonl",
      json{{"step", 1},
           {safe, 1},
           {"charts",
            {{{"title", safe}, {"x_label", safe}, {"curves", {{{"name", safe}, {"x", {0, 1}}, {"y", {1, 0}}}}}}}}}
          .dump());
  std::string const page = run_page(run.folder);
  CHECK(markup_mistake(page) == "");
  CHECK(count(page, "<script>") == 1);
  CHECK(count(page, "</title>") > 0);
  CHECK(has(page, "&lt;script&gt;alert(1)&lt;/script&gt; &quot;&#39;&amp;amp;"));
  CHECK(has(page, "[U+202E]evil[U+200B][U+0085]"));
  CHECK_FALSE(has(page, "\xe2\x80\xae"));
  CHECK(page.find('\0') == std::string::npos);
  CHECK(page.find('\x1b') == std::string::npos);
  CHECK(to_valid_utf8(page) == page);
  CHECK(has(page, "<span class=\"sign\">↵</span>\n"));
  CHECK(has(page, "completions.jsonl: a broken line is left out; line 2: "));

  explain_item item{.id = hostile,
                    .prompt = hostile,
                    .text = hostile,
                    .truth = hostile,
                    .extracted = hostile,
                    .correct = false,
                    .tokens = {hostile, "b"}};
  item.saliency = {{hostile, {1, NAN}, hostile}};
  item.charts = {{.title = hostile, .x_label = hostile, .y_label = hostile, .curves = {{hostile, {0, 1}, {1, 2}}}}};
  item.facts = {{hostile, hostile}};
  explain_page const explained{.title = hostile,
                               .facts = {{hostile, hostile}},
                               .items = {item},
                               .charts = item.charts,
                               .table = {{hostile, hostile}, {hostile, hostile}},
                               .table_caption = hostile,
                               .notes = {hostile}};
  std::string const text = explain_page_text(explained);
  CHECK(markup_mistake(text) == "");
  CHECK(count(text, "<script>") == 1);
  CHECK(to_valid_utf8(text) == text);
  CHECK(text.find('\0') == std::string::npos);
}

TEST_CASE("report: broken, missing and half-written files become notes, never a crash") {
  run_on_disk const run(3);
  auto const page_with = [&](char const* file, std::string const& content) {
    std::string const old =
        std::filesystem::exists(run.folder / file) ? read_text_file(run.folder / file) : std::string();
    put(run.folder / file, content);
    std::string const page = run_page(run.folder);
    CHECK(markup_mistake(page) == "");
    put(run.folder / file, old);
    return page;
  };
  std::string const good = metrics_line(1, 0.5).dump() + "\n";
  CHECK(has(page_with("metrics.jsonl", good + "{\"step\":2,\"rew"),
            "metrics.jsonl: a broken line is left out; line 2: "));
  CHECK(has(page_with("metrics.jsonl", good + good + "7\n\"x\"\n[]\n{}\n{\"step\":\"a\"}\n"),
            "metrics.jsonl: 6 broken lines are left out; the first is line 2: step 1 comes after step 1"));
  CHECK(has(page_with("metrics.jsonl", good), "this run has 1 of 3 steps so far"));
  CHECK(has(page_with("metrics.jsonl", ""), "this run has 0 of 3 steps so far"));
  CHECK(has(page_with("metrics.jsonl", std::string(5000, '[') + "\n"), "nested deeper"));
  CHECK(has(page_with("metrics.jsonl", "{\"step\":1,\"reward\":1e999}\n"), "a broken line"));
  auto c = completion_line(1, 0, 0, 1);
  c["saliency"]["values"] = {1, 2};
  CHECK(has(page_with("completions.jsonl", c.dump() + "\n"), "3 tokens but 2 saliency values"));
  c = completion_line(1, 0, 0, 1);
  c.erase("reward");
  CHECK(has(page_with("completions.jsonl", c.dump() + "\n" + completion_line(1, 0, 1, 1).dump()),
            "a broken line is left out; line 1: "));
  c = completion_line(1, 0, 0, 1);
  c["saliency"] = nullptr;
  CHECK(has(page_with("completions.jsonl", c.dump() + "\n"), "it has no saliency"));
  CHECK(has(page_with("completions.jsonl", "{\"step\":99999999999999999999}\n"), "broken line"));
  CHECK(has(page_with("completions.jsonl", ""), "There are no completions."));
  for (char const* const bad : {"", "7", "[1]", "{", "null"}) {
    CHECK(has(page_with("options.json", bad), "options.json is left out: "));
    CHECK(has(page_with("evaluation_before.json", bad), "evaluation_before.json is left out: "));
  }
  CHECK(page_with(
            "evaluation_before.json",
            R"({"accuracy_strict":{"value":"x","low":null,"high":[]},"pass_at":7,"per_question":[1],"samples":"b"})") !=
        "");
  CHECK(has(page_with("timings.jsonl", "{\"phase\":7}\n"), "timings.jsonl: a broken line"));
  CHECK(
      has(page_with("causal.jsonl", R"({"step":1,"charts":[{"title":"a","curves":[{"name":"b","x":[1,2],"y":[1]}]}]})"),
          "the curve b has 2 x but 1 y"));
  std::filesystem::remove(run.folder / "metrics.jsonl");
  std::filesystem::create_directory(run.folder / "metrics.jsonl");
  CHECK(has(run_page(run.folder), "metrics.jsonl cannot be read"));
  for (auto const& entry : std::filesystem::directory_iterator(run.folder)) std::filesystem::remove_all(entry);
  std::string const empty = run_page(run.folder);
  CHECK(markup_mistake(empty) == "");
  for (char const* const name : {"options.json", "metrics.jsonl", "completions.jsonl"})
    CHECK(has(empty, std::string(name) + " is missing"));
  CHECK_THROWS_AS(run_page(run.folder / "nothing"), file_error);
  CHECK_THROWS_WITH(write_run_page(run.folder / "nothing"), Catch::Contains("is no folder of a run"));
}

TEST_CASE("report: a long run with long texts stays below 3 MB and says what it leaves out") {
  run_on_disk const run(1);
  std::string metrics, completions;
  for (int s = 1; s <= 3000; ++s) {
    json m = metrics_line(s, std::sin(s));
    for (int k = 0; k < 60; ++k) m[fmt::format("front{}/x{}", k % 7, k)] = double(s * k);
    metrics += dump_json(m) + "\n";
  }
  json c = completion_line(1, 0, 0, 0);
  std::vector<double> values;
  std::vector<std::string> tokens;
  for (int i = 0; i < 5000; ++i) {
    tokens.push_back(" word");
    values.push_back(i % 17);
  }
  c["saliency"] = {{"tokens", tokens}, {"values", values}};
  for (int step : {1, 2, 3000})
    for (int g = 0; g < 6; ++g)
      for (int m = 0; m < 2; ++m) {
        c["step"] = step;
        c["group"] = g;
        c["reward"] = m;
        completions += dump_json(c) + "\n";
      }
  put(run.folder / "metrics.jsonl", metrics);
  put(run.folder / "completions.jsonl", completions);
  std::string const page = run_page(run.folder);
  CHECK(markup_mistake(page) == "");
  CHECK(page.size() < 3000000);
  CHECK(has(page, "3000 steps: each value shown is the mean over 20 of them."));
  CHECK(has(page, "<title>steps 1 to 20, mean\nreward: "));
  CHECK(has(page, "[1000 further tokens]"));
  CHECK(has(page, "of 6 groups"));
  CHECK(has(page, "<h3>Step 3000</h3>"));
}

TEST_CASE(
    "report: what a run measured about its saliency stands beside random order, also when most steps have no value") {
  run_on_disk const run(1);
  std::string metrics;
  for (int s = 1; s <= 20; ++s) {
    auto m = metrics_line(s, 0.5);
    m["saliency/deletion_auc"] = s % 10 == 0 ? json(0.125 * s) : json();
    if (s % 10 == 0) m["saliency/deletion_auc_random"] = 0.25, m["saliency/spearman_loo"] = 0.75;
    metrics += dump_json(m) + "\n";
  }
  put(run.folder / "metrics.jsonl", metrics);
  put(run.folder / "causal.jsonl",
      R"({"step":10,"items":32,"charts":[{"title":"Deletion","x_label":"share","curves":[{"name":"saliency","x":[0,1],"y":[0.9,null]},)"
      R"({"name":"random","x":[0,1],"y":[0.9,0.1],"control":true}]}]})");
  std::string const page = run_page(run.folder);
  CHECK(markup_mistake(page) == "");
  CHECK(has(page, "id=\"causal\""));
  CHECK(has(page, "<title>step 10\nsaliency: 1.25\nrandom order: 0.25</title>"));
  CHECK(has(page, "<title>step 20\nsaliency: 2.5\nrandom order: 0.25</title>"));
  CHECK(count(page, "random order: 0.25") == 2);
  CHECK_FALSE(has(page, "\ndeletion_auc: 2.5"));  // in its own section alone
  CHECK(has(page, "<b>Agreement with leave-one-out</b>"));
  CHECK(has(page, "<title>share 1\nrandom: 0.1</title>"));
  CHECK(has(page, "<dt>items</dt><dd>32</dd>"));
}

TEST_CASE("report: the figures at the top are of the first and the last step that have them") {
  run_on_disk const run(1);
  auto const saliency_card = [&](std::vector<json> const& saliency) {
    std::string metrics;
    for (std::size_t s = 0; s < saliency.size(); ++s) {
      json m = metrics_line(int(s + 1), 0.5);
      m["saliency/re_enabled/mean"] = saliency[s];
      metrics += dump_json(m) + "\n";
    }
    put(run.folder / "metrics.jsonl", metrics);
    std::string const page = run_page(run.folder), front = "<dt>saliency, re-enabled</dt><dd>";
    std::size_t const from = page.find(front);
    if (from == std::string::npos) return std::string();
    return page.substr(from + front.size(), page.find("</dd>", from) - from - front.size());
  };
  CHECK(saliency_card({0.5, 0.125, 0.25}) == "0.5 → 0.25<small>first and last step</small>");
  CHECK(saliency_card({0.5, 0.125, nullptr}) == "0.5 → 0.125<small>first and last step that have it</small>");
  CHECK(saliency_card({nullptr, 0.125, 0.25}) == "0.125 → 0.25<small>first and last step that have it</small>");
  CHECK(saliency_card({nullptr, nullptr}).empty());
}

TEST_CASE("report: a mask is spoken of where masks were trained, and another estimator by its name") {
  run_on_disk const run(2);
  auto const page_of = [&](char const* estimator, bool masks) {
    put(run.folder / "options.json", json{{"task", "arithmetic"}, {"saliency-estimator", estimator}}.dump());
    std::string metrics;
    for (int s = 1; s <= 2; ++s) {
      json m = metrics_line(s, 0.5);
      m["saliency/ce_unmasked"] = 1.5 * s;
      m["saliency/ce_start"] = m["saliency/ce_end"] = masks ? json(2.5 * s) : json();
      if (masks) m["saliency/scale"] = nullptr;  // of a first step without masks
      metrics += dump_json(m) + "\n";
    }
    put(run.folder / "metrics.jsonl", metrics);
    std::string const page = run_page(run.folder);
    CHECK(markup_mistake(page) == "");
    CHECK(has(page, "without mask: 1.5"));
    CHECK(has(page, "mask at its start") == masks);
    CHECK(has(page, "mask trained") == masks);
    CHECK(has(page, "1 where the mask was fully re-enabled") == masks);
    return page;
  };
  page_of("learned_mask", true);
  CHECK(has(page_of("attention_rollout", false), "<p>Colours are token saliency by attention_rollout, in its units."));
  // Another estimator in a program's traits.
  CHECK(has(page_of("learned_mask", false), "<p>Colours are token saliency, in the units of its estimator."));
}

TEST_CASE("report: thinning takes means over consecutive steps and leaves gaps out") {
  html::metric_table t{.steps = {1, 2, 3, 4, 5},
                       .columns = {{"a", {1, 3, NAN, 5, 8}}, {"b", {NAN, NAN, 1, 1, 1}}},
                       .row_names = {"1", "2", "3", "4", "step 5"}};
  auto const half = html::thin(t, 3);
  CHECK(half.steps == std::vector<double>{2, 4, 5});
  CHECK(half.columns[0].second == std::vector<double>{2, 5, 8});
  CHECK(std::isnan(half.columns[1].second[0]));
  CHECK(half.row_names == std::vector<std::string>{"steps 1 to 2, mean", "steps 3 to 4, mean", "step 5"});
  CHECK(html::thin(t, 5).steps == t.steps);
}

TEST_CASE("report: a chart of any values has finite coordinates") {
  for (auto const& y : std::vector<std::vector<double>>{{1, 1, 1},
                                                        {NAN, NAN, NAN},
                                                        {0, 1e300, -1e300},
                                                        {1e-300, 2e-300, 0},
                                                        {-1, NAN, 1},
                                                        {INFINITY, 1, 2},
                                                        {1e17, 1e17 + 16, 1e17},
                                                        {1.7e308, -1.7e308, 0},
                                                        {1.7e308, 1, 2},
                                                        {1e299, 9.9e299, -9.9e299},
                                                        {}}) {
    std::vector<double> x{1, 2, 3};
    x.resize(y.size());
    std::string const text = html::chart({.title = "t", .x_label = "x", .y_label = "", .curves = {{"a", x, y}}});
    CHECK(markup_mistake(text) == "");
    CHECK_FALSE(has(text, "nan"));
    CHECK_FALSE(has(text, "inf"));
    CHECK(text.size() < 20000);
  }
  CHECK(html::detail::ticks(0, 1, 4) == std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1});
  CHECK(html::detail::ticks(-0.9, -0.2, 4).size() >= 3);
}

TEST_CASE("report: token colours are steps of one scale with its ends as numbers") {
  html::token_scale const s{0, 9, false};
  CHECK(s.step(-5) == 0);
  CHECK(s.step(0.5) == 0);
  CHECK(s.step(4.5) == 4);
  CHECK(s.step(9) == 8);
  CHECK(s.step(50) == 8);
  CHECK(html::token_scale{2, 2, false}.step(2) == 4);
  std::vector<double> values(100, 0.5);
  values[0] = -1000;
  values[1] = 0.25;
  values[2] = 0.75;
  values[3] = 1000;
  values[4] = NAN;
  CHECK(html::token_scale::of(values).clipped);
  CHECK(html::token_scale::of({}).step(0.5) == 4);
  CHECK(has(html::legend({-1.5, 2.25, true}, "x"), "≤ -1.5"));
  std::vector<std::string> const tokens{"a", "", "b"};
  CHECK(html::coloured(tokens, std::vector<double>{0, 9, NAN}, s) ==
        "<p class=\"t\"><span class=\"t0\" title=\"0\">a</span><span class=\"t8\" title=\"9\"><span "
        "class=\"sign\">·</span></span><span>b</span></p>\n");
}

TEST_CASE("report: an explanation shows estimators side by side with their own scales") {
  explain_item item{.id = "q1",
                    .prompt = "1 + 1?",
                    .text = "1 1 #### 2",
                    .truth = "2",
                    .extracted = "2",
                    .correct = true,
                    .tokens = {"1", " 1"}};
  item.saliency = {{"learned mask", {0.25, 0.5}, "0.4 s"}, {"leave-one-out", {10, 30}}};
  item.charts = {
      {.title = "Deletion",
       .x_label = "share knocked out",
       .y_label = "p(answer)",
       .curves = {{"learned mask", {0, 0.5, 1}, {0.9, 0.3, 0.1}}, {"random", {0, 0.5, 1}, {0.9, 0.6, 0.1}, true}}}};
  explain_page page{.title = "explain",
                    .facts = {{"model", "tiny"}},
                    .items = {item},
                    .charts = item.charts,
                    .table = {{"estimator", "AUC"}, {"learned mask", "0.05"}},
                    .table_caption = "means"};
  scratch_folder const scratch;
  write_explain_page(scratch / "explain.html", page);
  std::string const text = read_text_file(scratch / "explain.html");
  CHECK(markup_mistake(text) == "");
  CHECK(text.find("://") == std::string::npos);
  CHECK(has(text,
            "<span class=\"t0\" title=\"0.25\">1</span><span class=\"t8\" title=\"0.5\"> 1</span><span class=\"rest\"> "
            "#### 2</span>"));
  CHECK(has(text, "<span class=\"t0\" title=\"10\">1</span><span class=\"t8\" title=\"30\"> 1</span>"));
  CHECK(has(text, "<title>share knocked out 0.5\nlearned mask: 0.3\nrandom: 0.6</title>"));
  CHECK(has(text, "class=\"l sc\""));
  CHECK(has(text, "<th scope=\"row\">learned mask</th><td class=\"n\">0.05</td>"));
  page.items[0].saliency[0].values.pop_back();
  CHECK_THROWS_WITH(explain_page_text(page),
                    Catch::Contains("item 1: the column learned mask has 1 values but there are 2 tokens"));
  page.items.assign(3000, item);
  std::string const many = explain_page_text(page);
  CHECK(many.size() < 3000000);
  CHECK(has(many, " of 3000 items are shown"));
  CHECK(markup_mistake(many) == "");
}

}  // namespace report_test
