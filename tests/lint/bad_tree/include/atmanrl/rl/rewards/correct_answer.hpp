#pragma once
/// \file
/// A reward that reads more than a reward needs.
#include <atmanrl/core/neighbour.hpp>
#include <atmanrl/rl/rollouts.hpp>
#include <atmanrl/text/answer.hpp>
#include <atmanrl/text/split.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/chat_files.hpp>
#include <atmanrl/text/gguf_vocab.hpp>
#include <atmanrl/text/tokenizer.hpp>
#include <atmanrl/text/tokenizer_json.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/gguf.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/decoder.hpp>
