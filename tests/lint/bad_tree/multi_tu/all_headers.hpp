#pragma once
#define ATMANRL_VERSION "0"
int defined_in_every_unit() { return 1; }
