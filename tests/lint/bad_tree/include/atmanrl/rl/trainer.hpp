#pragma once
/// \file
/// In order as far as ranks go, but with a wrong word.
// TODO write it
inline void complain_loudly() { std::puts("on stdout"); }  // not found here: stderr
