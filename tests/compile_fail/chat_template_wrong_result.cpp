// expect: atmanrl: not a chat template: it needs `atmanrl::chat_text operator\(\)\(std::span<atmanrl::chat_message const> messages, bool answer_follows\) const`
#include <atmanrl/text/chat_template.hpp>

struct as_string {
  std::string operator()(std::span<atmanrl::chat_message const>, bool) const { return {}; }
};
atmanrl::chat_format const format{as_string{}};
