#include "input.hpp"
#include "verbs.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/blocks.hpp>
#include <atmanrl/text/answer.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <fmt/format.h>

namespace inspect {

namespace {

using atmanrl::dump_json, atmanrl::expects, atmanrl::file_error, atmanrl::json, atmanrl::usage_error;

/// The tokenizer that was named, else the one that belongs to the model.
atmanrl::tokenizer open_tokenizer(common_options const& c) {
  expects<usage_error>(!c.model.empty() || !c.tokenizer.empty(), "--model is missing");
  return atmanrl::tokenizer::load(c.tokenizer.empty() ? c.model : c.tokenizer);
}

/// Whether the model comes with a tokenizer, readable or not.
bool has_tokenizer(common_options const& c) {
  std::filesystem::path const model(c.model);
  if (!c.tokenizer.empty()) return true;
  if (std::filesystem::is_directory(model)) return std::filesystem::exists(model / "tokenizer.json");
  if (model.extension() == ".gguf") {
    auto const kind = atmanrl::gguf_file(model).find<std::string>("tokenizer.ggml.model");
    return kind && *kind != "none" && *kind != "no_vocab";
  }
  if (model.extension() != ".bin") return false;
  auto const vocab = atmanrl::model_file::open(model, atmanrl::standard_architectures()).config().vocab;
  return std::filesystem::exists(model.parent_path() /
                                 (vocab == 32000 ? "tokenizer.bin" : fmt::format("tok{}.bin", vocab)));
}

std::vector<int> encode_turn(atmanrl::tokenizer const& tokenizer, std::string const& user,
                             std::optional<std::string> const& system) {
  std::vector<atmanrl::chat_message> messages;
  if (system) messages.push_back({"system", *system});
  messages.push_back({"user", user});
  return encode_chat(tokenizer, tokenizer.chat(), messages);
}

/// A text to continue, after the begin-of-text token where the model wants one, which then stands there exactly once.
std::vector<int> encode_prompt(atmanrl::tokenizer const& tokenizer, std::string_view text, bool special) {
  auto ids = special ? tokenizer.encode_with_specials(text) : tokenizer.encode(text);
  int const bos = tokenizer.bos();
  if (bos >= 0 && (ids.empty() || ids.front() != bos)) ids.insert(ids.begin(), bos);
  return ids;
}

/// Models have more rows than their tokenizer has tokens when the vocabulary was padded; those rows have no text.
std::string text_of(atmanrl::tokenizer const& tokenizer, std::vector<int> ids) {
  std::erase_if(ids, [&](int id) { return id >= tokenizer.vocab_size(); });
  return atmanrl::to_valid_utf8(tokenizer.decode(ids));
}

/// The truth of a line in canonical form: a number, or a GSM8K solution that ends in `#### number`.
std::string number_truth(json const& truth, std::string const& where) {
  std::string const text = truth.is_number()   ? truth.dump()
                           : truth.is_string() ? truth.get<std::string>()
                                               : std::string();
  auto const number =
      text.find("####") == std::string::npos ? atmanrl::to_canonical_number(text) : atmanrl::gsm8k_truth(text);
  expects<file_error>(number.has_value(), "{}: truth is not a number", where);
  return *number;
}

/// A letter from A to D, or the number of the choice from 0 to 3.
std::string letter_truth(json const& truth, std::string const& where) {
  if (truth.is_number_integer() && truth >= 0 && truth <= 3) return std::string(1, char('A' + truth.get<int>()));
  std::string const text = truth.is_string() ? truth.get<std::string>() : std::string();
  char const letter = text.size() == 1 ? atmanrl::detail::to_upper(text[0]) : ' ';
  expects<file_error>(letter >= 'A' && letter <= 'D', "{}: truth is not one of the letters A to D", where);
  return std::string(1, letter);
}

}  // namespace

std::string tokenize(common_options const& c, std::string_view text, bool special) {
  auto const tokenizer = open_tokenizer(c);
  return dump_json(json(special ? tokenizer.encode_with_specials(text) : tokenizer.encode(text)));
}

std::string detokenize(common_options const& c, std::string const& ids) {
  auto const parsed = parse_ids("--ids", ids);
  auto const tokenizer = open_tokenizer(c);
  check_ids("--ids", parsed, tokenizer.vocab_size());
  std::string const bytes = tokenizer.decode(parsed);
  std::string hex;
  for (char const byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return dump_json(atmanrl::json{{"text", atmanrl::to_valid_utf8(bytes)}, {"bytes", hex}});
}

std::string chat(common_options const& c, std::string const& user, std::optional<std::string> const& system) {
  return dump_json(json(encode_turn(open_tokenizer(c).with_chat(c.chat), user, system)));
}

prepared_prompt prepare_prompt(common_options const& c, generate_options const& o) {
  prepared_prompt p;
  std::optional<atmanrl::tokenizer> tokenizer;
  if (!o.ids || !c.tokenizer.empty()) {
    tokenizer = open_tokenizer(c);
  } else if (has_tokenizer(c)) {
    try {
      tokenizer = open_tokenizer(c);
    } catch (file_error const& e) {
      p.unreadable = e.what();
    }
  }
  if (o.ids) {
    p.option = "--ids";
    p.ids = parse_ids(p.option, *o.ids);
  } else if (o.prompt) {
    p.option = "--prompt";
    p.ids = encode_prompt(*tokenizer, *o.prompt, o.special);
  } else {
    p.option = "--chat";
    tokenizer = tokenizer->with_chat(c.chat);
    p.ids = encode_turn(*tokenizer, *o.chat, o.system);
  }
  if (tokenizer) {
    // What is no conversation ends with a text, whatever the model's chats look like.
    if (!o.chat) tokenizer = tokenizer->with_chat(tokenizer->chat().as_plain());
    p.decode = [t = *tokenizer](std::vector<int> const& ids) { return text_of(t, ids); };
    p.stop_ids = [t = *tokenizer](std::span<int const> of_model) { return atmanrl::stop_ids(t, of_model); };
  }
  return p;
}

std::string answer(std::string_view lines, bool letters) {
  std::string out;
  std::size_t number = 0;
  for (std::size_t at = 0; at < lines.size();) {
    std::size_t const end = std::min(lines.find('\n', at), lines.size());
    std::string_view const line = lines.substr(at, end - at);
    at = end + 1;
    auto const where = fmt::format("standard input:{}", ++number);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    json const item = atmanrl::parse_json(line, where);
    expects<file_error>(item.is_object(), "{}: an object with completion and truth is wanted, this is {}", where,
                        item.type_name());
    for (char const* const key : {"completion", "truth"})
      expects<file_error>(item.contains(key), "{}: {} is missing", where, key);
    expects<file_error>(item["completion"].is_string(), "{}: completion is {}, not a string", where,
                        item["completion"].type_name());

    auto const completion = item["completion"].get<std::string>();
    auto const truth = letters ? letter_truth(item["truth"], where) : number_truth(item["truth"], where);
    auto const found = letters ? atmanrl::extract_letter(completion) : atmanrl::extract_number(completion);
    auto const as_json = [](std::optional<std::string> const& s) { return s ? json(*s) : json(nullptr); };
    auto const correct = [&](std::optional<std::string> const& s) {
      return s && (letters ? *s == truth : atmanrl::numbers_equal(*s, truth));
    };
    if (!out.empty()) out += '\n';
    out += dump_json(atmanrl::json{{"extracted", as_json(found.strict)},
                                   {"extracted_flexible", as_json(found.flexible)},
                                   {"correct_strict", correct(found.strict)},
                                   {"correct_flexible", correct(found.flexible)}});
  }
  expects<file_error>(!out.empty(), "standard input: there are no lines");
  return out;
}

}  // namespace inspect
