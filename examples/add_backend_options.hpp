#pragma once
// The command line's part of backend_options.
#include <CLI/CLI.hpp>

#include "backend_options.hpp"

#include <string>

/// The options of backend_options, except --threads, for programs with options of their own.
inline void add_backend_options(CLI::App& app, backend_options& o) {
  app.add_option("--backend", o.backend, "cpu, or cuda: on a GPU")->capture_default_str();
  app.add_option("--device", o.device,
                 "number of the GPU, from 0; of several processes on a machine each takes the next")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--tf32", o.tf32, "on a GPU: products of floats on matrix units, with 10 bits of mantissa (TF32)");
  app.add_option_function<std::string>(
         "--bf16-weight-gradients",
         [&o](std::string const& text) {
           o.bf16_weight_gradients.reset();
           if (text != "auto") o.bf16_weight_gradients = text == "true";
         },
         "on a GPU: true rounds the factors of weights' gradients to bf16; auto: where the weights are bf16")
      ->default_str("auto")
      ->check(CLI::IsMember({"auto", "true", "false"}));
  app.add_option_function<std::string>(
         "--graphs", [&o](std::string const& text) { o.graphs = text == "on"; },
         "on a GPU: steps that repeat are launched as CUDA graphs; results do not depend on it")
      ->default_str("on")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_option_function<std::string>(
         "--skinny-products", [&o](std::string const& text) { o.skinny_products = text == "on"; },
         "on a GPU, bf16 weights: products of up to 16 rows add up in an order that does not depend on how many")
      ->default_str("off")
      ->check(CLI::IsMember({"on", "off"}));
}
