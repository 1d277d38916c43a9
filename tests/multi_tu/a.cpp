#include "all_headers.hpp"

char const* version_in_a() { return ATMANRL_VERSION; }
