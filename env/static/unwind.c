// Debian's libgcc_eh asks glibc where a program's unwind tables are; musl has no such function.
// -1 says "not known". Our programs abort on a panic and never unwind.
int _dl_find_object(void *address, void *found) {
    (void)address;
    (void)found;
    return -1;
}
