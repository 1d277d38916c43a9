#pragma once

/// \file
/// What a chat format is: a type that turns a conversation into text with control tokens. The model's own template, the
/// named formats (text/chat_formats.hpp) and whatever a researcher writes come in by this door.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/text/chat_text.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One turn. `role` is "system", "user" or "assistant".
struct chat_message {
  std::string role, content;
};

/// `chat_text operator()(std::span<chat_message const> messages, bool answer_follows) const`: what a model reads. The
/// words of the format go in by `control`, what messages say by `content`; with `answer_follows` the text ends with the
/// opening of the assistant's turn. What ends a turn is found out by asking for a conversation that ends with an
/// answer. Optional:
///  - `std::string jinja() const`: a Jinja template that says the same, which is saved beside a trained model.
template <class T>
concept ChatTemplate = requires(T const t, std::span<chat_message const> messages, bool answer_follows) {
  { t(messages, answer_follows) } -> std::same_as<chat_text>;
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a chat format.
template <class T>
consteval bool explain_chat_template() {
  if constexpr (!ChatTemplate<T>)
    static_assert(
        always_false<T>,
        "atmanrl: not a chat template: it needs `atmanrl::chat_text operator()(std::span<atmanrl::chat_message "
        "const> messages, bool answer_follows) const` (see docs/extending.md#chat-templates)");
  return true;
}
}  // namespace detail

/// A chat format in use, or plain text. A value; copies share the template. All calls are const and safe from several
/// threads if those of the template are.
class chat_format {
 public:
  /// Plain text: a base model, which knows no turns.
  chat_format() = default;

  /// \param name  for people, "the template of FILE" for instance
  template <class C>
  requires(!std::same_as<std::remove_cvref_t<C>, chat_format>)
      chat_format(C chat, std::string name = "a format of its own")
      : name_(std::move(name)) {
    static_assert(detail::explain_chat_template<C>());
    if constexpr (requires {
                    { chat.jinja() } -> std::convertible_to<std::string>;
                  })
      jinja_ = chat.jinja();
    if constexpr (ChatTemplate<C>) render_ = std::make_shared<function const>(std::move(chat));
  }

  /// A template that cannot be used: whoever uses it gets the sentence.
  static chat_format refused(std::string sentence, std::string name) {
    return chat_format([sentence = std::move(sentence)](std::span<chat_message const>,
                                                        bool) -> chat_text { fail<file_error>("{}", sentence); },
                       std::move(name));
  }

  bool is_plain() const { return render_ == nullptr; }
  std::string const& name() const { return name_; }
  /// A template in Jinja that says the same and that no file of the model has yet; empty: none.
  std::string const& jinja() const { return jinja_; }

  /// What every conversation begins with that does not have a system message of its own.
  std::optional<std::string> const& system() const { return system_; }
  chat_format with_system(std::optional<std::string> text) const {
    chat_format out = *this;
    out.system_ = std::move(text);
    return out;
  }
  /// Plain text with the same system message.
  chat_format as_plain() const { return chat_format().with_system(system_); }

  /// What the model reads; in plain text contents with an empty line between them.
  /// \throws usage_error for no messages or an unknown role, or where the template refuses the conversation; file_error
  ///         for a template that cannot be followed
  chat_text operator()(std::span<chat_message const> messages, bool answer_follows = true) const {
    expects<usage_error>(!messages.empty(), "a chat needs at least one message");
    for (chat_message const& m : messages)
      expects<usage_error>(m.role == "system" || m.role == "user" || m.role == "assistant",
                           "the role \"{}\" is none of system, user and assistant", m.role);
    if (system_ && messages.front().role != "system") {
      std::vector<chat_message> all{{"system", *system_}};
      all.insert(all.end(), messages.begin(), messages.end());
      return rendered(all, answer_follows);
    }
    return rendered(messages, answer_follows);
  }

 private:
  using function = std::function<chat_text(std::span<chat_message const>, bool)>;

  chat_text rendered(std::span<chat_message const> messages, bool answer_follows) const {
    if (render_) return (*render_)(messages, answer_follows);
    chat_text out;
    for (chat_message const& m : messages) out.content(out.empty() ? "" : "\n\n").content(m.content);
    return out;
  }

  std::string name_ = "plain", jinja_;
  std::shared_ptr<function const> render_;
  std::optional<std::string> system_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
