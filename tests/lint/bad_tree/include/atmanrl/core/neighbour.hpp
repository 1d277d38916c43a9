/// \file
/// No guard, a macro in the wrong place, and a name for everybody.
#include <vector>
#define ATMANRL_MISPLACED 1
#define ATMANRL_TEMPLATES(TEMPLATE, W)
#define TWICE(x) ((x) + (x))
using namespace std;
