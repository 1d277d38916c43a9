// Headers of another version than the library's: does not link.
#include <config.hpp>

int main() {}
