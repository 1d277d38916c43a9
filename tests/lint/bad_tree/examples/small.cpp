// [part]
int answer = 42;
// [/part]
char const* model = "/home/somebody/model.gguf";
// This line goes on and on, past the column at which every other line of this repository has been broken, to be complained of.
