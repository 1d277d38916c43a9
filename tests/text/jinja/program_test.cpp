#include <atmanrl/io/json.hpp>
#include <atmanrl/text/jinja/program.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <random>
#include <string>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace program_test {
namespace {

jinja::surroundings conversation(json const& messages, bool generate) {
  jinja::surroundings out;
  for (json const& m : messages) out.messages.push_back({m[0], m[1]});
  out.add_generation_prompt = generate;
  out.texts = {{"bos_token", "<B>"}, {"eos_token", "<E>"}};
  return out;
}

jinja::surroundings small() {
  return conversation(json::parse(R"([["user", "Hi"], ["assistant", "\u00a0Hello?\u3000"], ["user", "Fine.\u001f"]])"),
                      true);
}

std::string rendered(std::string const& text, jinja::surroundings const& given = small()) {
  return jinja::program(text, "T").render(given).bytes();
}

std::string complaint_of(std::string const& text) {
  try {
    rendered(text);
  } catch (error const& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("jinja: templates are rendered as transformers renders them, white space included") {
  json const all = read_json_file(fixture("text/jinja_vectors.json"));
  REQUIRE(all.size() > 350);
  for (json const& one : all) {
    auto const text = one["template"].get<std::string>();
    CAPTURE(text);
    if (one["text"].is_null())
      CHECK_THROWS_AS(rendered(text), error);
    else
      CHECK(rendered(text) == one["text"].get<std::string>());
  }
}

TEST_CASE("jinja: the templates that models ship give the texts that transformers gives", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  json const all = read_json_file(fixture("text/chat/models_chats.json"));
  REQUIRE(all.size() > 130);
  std::string name;
  std::optional<jinja::program> program;
  for (json const& one : all) {
    if (one["template"] != name) {
      name = one["template"];
      program.emplace(read_text_file(*data / "tokenizers/templates" / name), name);
    }
    jinja::surroundings given = conversation(one["messages"], one["generate"]);
    if (one.contains("thinking")) given.switches = {{"enable_thinking", one["thinking"].get<bool>()}};
    CAPTURE(one.dump());
    if (one["text"].is_null())
      CHECK_THROWS_WITH(program->render(given), ATMANRL_CONTAINS("refuses this conversation"));
    else
      CHECK(program->render(given).bytes() == one["text"].get<std::string>());
  }
}

TEST_CASE("jinja: what is not followed is named with file and line, never guessed") {
  for (auto const& [text, sentence] : std::vector<std::pair<std::string, std::string>>{
           {"a\nb{{ x | groupby('y') }}", "T, line 2: the chat template uses the filter \"groupby\""},
           {"{% include 'x' %}", "the statement \"include\""},
           {"{% for a in b recursive %}{% endfor %}", "recursive"},
           {"{{ messages is weird }}", "the test \"weird\""},
           {"{{ 'a'.center(3) }}", "the method \"center\" of a text"},
           {"{{ {'items': 1}.items }}", "the method \"items\" of a mapping without calling it"},
           {"{{ cycler('a') }}", "the function \"cycler\""},
           {"{{ 'é'.upper() }}", "beyond ASCII"},
           {"{% if x %}", "\"endif\" is missing"},
           {"{{ 'a' + 1 }}", "computes \"+\" of a text and a whole number"},
           {"{{ nothing + 'a' }}", "uses \"nothing\", which is undefined"},
           {"{{ nothing.role }}", "asks for \"role\" of \"nothing\", which is undefined"},
           {"{{ f() }}", "calls \"f\", which is undefined"},
           {"{{ 1 // 0 }}", "divides by zero"},
           {"{{ 'a' & 'b' }}", "the character \"&\" inside of a tag"},
           {"{{ ) }}", "opens nowhere"},
           {"{# x", "comment without end"},
           {"{% break %}", "outside of a loop"},
           {"{{ strftime_now('%Q') }}", "writes a date"},
           {"{{ x.__class__ }}", "hidden attribute"}}) {
    CAPTURE(text);
    CHECK_THAT(complaint_of(text), ATMANRL_CONTAINS(sentence));
  }
  CHECK_THAT(complaint_of("{{ x | a\x1b[31m\n }}"), !ATMANRL_CONTAINS("\x1b"));
  CHECK_THAT(complaint_of("{{ raise_exception('No\nsystem') }}"),
             ATMANRL_CONTAINS("T, line 1: the chat template refuses this conversation: No\\nsystem"));
}

TEST_CASE("jinja: a template can neither run for ever nor fill memory nor the stack") {
  std::string deep = "{{ ", chain = "{{ 1", blocks;
  for (int i = 0; i < 5000; ++i) {
    deep += '(';
    chain += " + 1";
    blocks += "{% if true %}";
  }
  deep += std::string(5000, ')') + " }}";
  for (
      auto const& [text, sentence] : std::vector<std::pair<std::string, std::string>>{
          {deep, "nested more than"},
          {chain + " }}", "nested more than"},
          {blocks, "nested more than"},
          {"{% for a in range(3000) %}{% for b in range(3000) %}x{% endfor %}{% endfor %}", "steps"},
          {"{{ range(1000000000) }}", "numbers"},
          {"{{ 'a' * 1000000000000 }}", "bytes"},
          {"{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "bytes"},
          {"{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('a', 'aaa') %}"
           "{% endfor %}",
           "bytes"},
          {"{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
           "steps"},
          {"{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s] %}{% endfor %}", "nests lists"},
          {"{% set a = 'a' * 4000000 %}{{ a.find('a' * 2000000 + 'b') }}", "steps"},
          {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"}}) {
    CAPTURE(sentence, text.substr(0, 100));
    CHECK_THAT(complaint_of(text), ATMANRL_CONTAINS(sentence));
  }
  CHECK_THAT(complaint_of(std::string(2 << 20, 'x')), ATMANRL_CONTAINS("bytes"));
  // What looks through a text, or copies one, is work whatever comes of it.
  for (std::string const use :
       {"{% if y|int %}{% endif %}", "{% if y|float %}{% endif %}", "{% if b|trim %}{% endif %}",
        "{% if d[y] %}{% endif %}", "{% set q = {y: 1} %}", "{% set q = k|list %}", "{% set q = k.keys() %}",
        "{% set q = k.items() %}", "{% set q = dict(k) %}", "{% if []|map(attribute=y)|list %}{% endif %}",
        "{% if y in k %}{% endif %}", "{% if k.get(y) %}{% endif %}", "{% if k == k %}{% endif %}",
        "{% if k|dictsort %}{% endif %}", "{% if y.startswith([z, z]) %}{% endif %}",
        "{% if y is upper %}{% endif %}"}) {
    CAPTURE(use);
    std::string const complaint = complaint_of(
        "{% set y = 'a' * 1000000 %}{% set z = 'a' * 999999 + 'b' %}{% set b = ' ' * 1000000 %}{% set d = {} %}"
        "{% set k = {y: 1, 'x': 2} %}{% for i in range(1000) %}" +
        use + "{% endfor %}");
    CHECK_THAT(complaint, ATMANRL_CONTAINS("takes more than 2000000 steps") || ATMANRL_CONTAINS("makes texts of more"));
  }
  // A namespace that holds itself is freed: the address sanitiser would say.
  CHECK(rendered("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns] %}x") == "x");
}

TEST_CASE("jinja: damaged templates are refused or rendered, whatever they are") {
  json const all = read_json_file(fixture("text/jinja_vectors.json"));
  std::mt19937 draw(3);
  auto const below = [&](std::size_t n) { return std::size_t(draw() % n); };
  int refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = all[below(all.size())]["template"];
    std::string const other = all[below(all.size())]["template"];
    for (std::size_t k = below(4); k-- > 0;) {
      std::size_t const at = below(text.size() + 1);
      switch (below(3)) {
        case 0:
          text.erase(at, below(4));
          break;
        case 1:
          text.insert(at, 1, "{}%#'\"()[]|.-\n\\\xff"[below(16)]);
          break;
        default:
          text.insert(at, other.substr(below(other.size() + 1), below(12)));
      }
    }
    try {
      rendered(text);
    } catch (error const& e) {
      ++refused;
      REQUIRE(std::string(e.what()).starts_with("T, line "));
      REQUIRE(std::string(e.what()).size() < 500);
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("jinja: bytes of a message stay marked through everything that is done with them") {
  auto const marks = [](std::string const& text) {
    chat_text const out = jinja::program(text, "T").render(small());
    std::string shown;
    for (std::size_t i = 0; i < out.size(); ++i) shown += out.is_content(i) ? out.bytes()[i] : '.';
    return shown;
  };
  CHECK(marks("<{{ messages[0].role }}>{{ messages[0].content }}!") == "......Hi.");
  CHECK(marks("{{ messages[0].content[1:] + 'a' }}{{ messages[0].content[::-1] }}") == "i.iH");
  CHECK(marks("{{ ('<' ~ messages[0].content ~ '>') | upper | trim }}") == ".HI.");
  CHECK(marks("{{ 'a-b'.replace('-', messages[0].content) }}{{ messages[0].content.replace('i', 'o') }}") == ".Hi.H.");
  CHECK(marks("{{ messages[0].content.split('i')[0] }}{{ messages[0].content | list | join('+') }}") == "HH.i");
  CHECK(marks("{{ messages[0] | tojson }}") == ".............................Hi..");
  CHECK(marks("{% set x %}[{{ messages[0].content }}]{% endset %}{{ x }}{% macro f(a) %}{{ a }}{% endmacro %}"
              "{{ f(messages[0].content) }}") == ".Hi.Hi");
  CHECK(marks("{% for k in {messages[0].content: 1} %}{{ k }}{% endfor %}") == "Hi");
}

TEST_CASE("jinja: today is the day that is given, in strftime's forms") {
  jinja::surroundings given = small();
  CHECK(rendered("{{ strftime_now('%d %b %Y') }}", given) == "26 Jul 2024");
  given.today = {std::chrono::year(2025), std::chrono::March, std::chrono::day(2)};
  CHECK(rendered("{{ strftime_now('%A, %B %-d, %y; %Y-%m-%d %H:%M:%S %a %I%p%%') }}", given) ==
        "Sunday, March 2, 25; 2025-03-02 00:00:00 Sun 12AM%");
}

}  // namespace program_test
