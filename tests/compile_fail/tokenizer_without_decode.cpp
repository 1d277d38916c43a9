// expect: atmanrl: a tokenizer needs `std::string decode\(std::span<int const>\) const` and `std::string_view token_bytes
#include <atmanrl/text/tokenizer_concept.hpp>

struct letters {
  atmanrl::index_t vocab_size() const { return 26; }
  std::vector<int> encode(std::string_view) const { return {}; }
  std::vector<int> encode_with_specials(std::string_view) const { return {}; }
  bool is_special(int) const { return false; }
  int bos() const { return -1; }
  std::optional<int> token_id(std::string_view) const { return {}; }
};
static_assert(atmanrl::detail::explain_tokenizer<letters>());
