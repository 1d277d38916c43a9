#include "../on_cuda/on_cuda.hpp"
#include "device_call.hpp"
#include "gradient_file.hpp"
#include "grpo_request.hpp"
#include "input.hpp"
#include "verbs.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/blocks.hpp>

#include <utility>

namespace inspect {

namespace {

using atmanrl::dump_json, atmanrl::expects, atmanrl::model_file, atmanrl::json, atmanrl::usage_error;

/// Carries a request out with the backend and the type of weights that were asked for.
template <class Result>
Result compute_with(common_options const& c, model_file const& file, request what) {
  bool const bf16 = c.dtype == "bf16";
  if (c.backend == "cuda") {
    result out;
    device_call const call{static_cast<backend_options const&>(c), bf16, &file, &what, &out};
    run_on_cuda("inspect", &call, {});
    return std::get<Result>(std::move(out));
  }
  if (c.backend == "cpu") return std::get<Result>(compute_cpu(file, c.threads, bf16, what));
  return std::get<Result>(bf16 ? compute_reference_bf16(file, what) : compute_reference_f32(file, what));
}

/// \throws usage_error when the parts together are longer than the model's positions
void check_length(std::string_view what, std::initializer_list<std::size_t> parts, model_file const& file) {
  std::size_t total = 0;
  for (std::size_t const part : parts) total += part;
  expects<usage_error>(total <= std::size_t(file.config().max_positions),
                       "{}: a sequence of {} tokens is too long: the model's limit is {}", what, total,
                       file.config().max_positions);
}

/// Ids of an option that the model can be given.
std::vector<int> checked_ids(std::string_view option, std::string const& list, model_file const& file) {
  auto ids = parse_ids(option, list);
  check_ids(option, ids, file.config().vocab);
  check_length(option, {ids.size()}, file);
  return ids;
}

}  // namespace

std::string logprobs(common_options const& c, std::string const& ids) {
  auto const file = model_file::open(c.model, atmanrl::standard_architectures());
  auto const r = compute_with<logprobs_result>(c, file, logprobs_request{checked_ids("--ids", ids, file)});
  return dump_json(json{{"logprobs", r.log_probs}, {"argmax", r.argmax}});
}

std::string generate(common_options const& c, generate_options const& o) {
  auto const file = model_file::open(c.model, atmanrl::standard_architectures());
  auto const prompt = prepare_prompt(c, o);
  check_ids(prompt.option, prompt.ids, file.config().vocab);
  expects<usage_error>(std::ptrdiff_t(prompt.ids.size()) < file.config().max_positions,
                       "{}: a prompt of {} tokens leaves no room for new ones: the model's limit is {}", prompt.option,
                       prompt.ids.size(), file.config().max_positions);
  generate_request request = o.request;
  request.ids = prompt.ids;
  request.stop_ids = file.config().stop_ids;
  // A tokenizer that was named may be another model's; what is not among this one's tokens ends nothing.
  if (prompt.stop_ids) request.stop_ids = prompt.stop_ids(file.config().stop_ids);
  std::erase_if(request.stop_ids, [&](int id) { return id >= file.config().vocab; });
  auto const r = compute_with<generate_result>(c, file, request);
  if (!prompt.unreadable.empty()) fmt::print(stderr, "text is null: {}\n", prompt.unreadable);
  json text = nullptr;
  if (prompt.decode) text = prompt.decode(r.ids);
  return dump_json(json{{"ids", r.ids}, {"logprobs", r.log_probs}, {"text", text}});
}

std::string gradient(common_options const& c, std::string const& ids, std::filesystem::path const& out) {
  auto const file = model_file::open(c.model, atmanrl::standard_architectures());
  gradient_request request{checked_ids("--ids", ids, file)};
  expects<usage_error>(request.ids.size() >= 2, "--ids: one id has no next token, so there is no loss");
  auto const r = compute_with<gradient_result>(c, file, std::move(request));
  atmanrl::parameter_layout const layout(file.config(), file.kind());
  check_gradient(layout, r.gradient);
  std::string text = dump_json(
      json{{"loss", r.loss}, {"gradient_norm", r.norm}, {"tensors", layout.all().size()}, {"out", out.string()}});
  write_gradient(out, layout, r.gradient);
  return text;
}

std::string mask(common_options const& c, mask_ids const& ids, atmanrl::mask_options const& options, bool gradient) {
  auto const file = model_file::open(c.model, atmanrl::standard_architectures());
  mask_request r{.prompt = checked_ids("--prompt-ids", ids.prompt, file),
                 .cot = checked_ids("--cot-ids", ids.cot, file),
                 .delimiter = checked_ids("--delimiter-ids", ids.delimiter, file),
                 .answer = checked_ids("--answer-ids", ids.answer, file),
                 .options = options,
                 .gradient = gradient};
  check_length("prompt, chain of thought, delimiter and answer",
               {r.prompt.size(), r.cot.size(), r.delimiter.size(), r.answer.size()}, file);
  auto const m = compute_with<mask_outcome>(c, file, std::move(r));
  json out{{"ce_unmasked", m.ce_unmasked}, {"ce_start", m.ce_start}, {"ce_end", m.ce_end}, {"mask", m.mask}};
  out["token_saliency"] = m.saliency ? json(m.saliency->tokens) : json(nullptr);
  out["reward_re_enabled"] = m.saliency ? json(m.saliency->re_enabled) : json(nullptr);
  out["reward_as_printed"] = m.saliency ? json(m.saliency->as_printed) : json(nullptr);
  if (gradient) out["gradient"] = m.gradient;
  return dump_json(out);
}

std::string grpo(common_options const& c, std::string_view input, std::filesystem::path const& out) {
  auto [model, request] = parse_grpo_request(input);
  auto const file = model_file::open(model, atmanrl::standard_architectures());
  for (std::size_t g = 0; g < request.groups.size(); ++g) {
    auto const& group = request.groups[g];
    auto const place = fmt::format("standard input: groups[{}]", g);
    check_ids(place + ": prompt_ids", group.prompt, file.config().vocab);
    for (std::size_t i = 0; i < group.completions.size(); ++i) {
      auto const here = fmt::format("{}: completions[{}]: ids", place, i);
      check_ids(here, group.completions[i].ids, file.config().vocab);
      check_length(here, {group.prompt.size(), group.completions[i].ids.size()}, file);
    }
  }
  auto const r = compute_with<grpo_result>(c, file, std::move(request));
  atmanrl::parameter_layout const layout(file.config(), file.kind());
  check_gradient(layout, r.gradient);
  json answer{{"advantages", r.advantages},
              {"ratios", r.ratios},
              {"token_losses", r.token_losses},
              {"loss", r.loss},
              {"gradient_norm", r.gradient_norm}};
  if (r.kl) answer["kl"] = *r.kl;
  std::string text = dump_json(answer);
  if (!out.empty()) write_gradient(out, layout, r.gradient);
  return text;
}

}  // namespace inspect
