#include <cstring>

#include "all_headers.hpp"

char const* version_in_a();

int main() { return std::strcmp(version_in_a(), ATMANRL_VERSION) == 0 ? 0 : 1; }
