// [part]
int answer = 42;
// [/part]
char const* model = "/home/somebody/model.gguf";
// docs/method.md, (M1) and (M3).
// This line goes on and on, past the column at which every other line of this repository has been broken, to be complained of.
char const* help = "see docs/page.md#what-is-there and docs/"
                   "page.md#what-is-not, or docs/page.md, section 2";
