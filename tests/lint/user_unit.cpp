// Never built into a program: the command that would compile it is what the compile checks use.
int main() {}
