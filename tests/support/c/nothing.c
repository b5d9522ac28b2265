/* The cheapest program: linked statically, it leaves at once. */
int main(void) { return 0; }
