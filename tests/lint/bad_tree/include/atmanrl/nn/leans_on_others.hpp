#pragma once
namespace atmanrl {
// The include of <vector> is left to whoever comes first.
inline std::vector<int> leans() { return {}; }
}  // namespace atmanrl
