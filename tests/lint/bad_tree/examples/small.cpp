// [part]
int answer = 42;
// [/part]
char const* model = "/home/somebody/model.gguf";
