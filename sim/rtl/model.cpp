// An accelerator behind two pipes: images come in, outputs go out, as long as the process lives.
//
// Arguments: beats per image of the input and of the output, bytes of a beat of each, and the
// cycles without a beat after which an image is given up.  All numbers in the pipes are 64-bit,
// little-endian.  It says 0 when it is ready.  Request: count, then the beats of so many images.  Answer: the cycle in which
// the first beat was taken; then for each image the cycle of its last beat, and its beats.  Cycles
// count from the request.  A fault is a line on standard error and exit code 1.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

using Word = unsigned long long;

static void fail(const char* what) {
    std::fprintf(stderr, "error: %s\n", what);
    std::exit(1);
}

static bool get(void* to, size_t size) { return std::fread(to, 1, size, stdin) == size; }

static void put(const void* from, size_t size) {
    if (std::fwrite(from, 1, size, stdout) != size) std::exit(1);  // nobody reads
}

int main(int argc, char** argv) {
    if (argc != 6) fail("five arguments are needed");
    Word number[5];
    for (int k = 0; k < 5; ++k) number[k] = std::strtoull(argv[k + 1], nullptr, 10);
    const Word beats_in = number[0], beats_out = number[1], most_idle = number[4];
    const size_t bytes_in = number[2], bytes_out = number[3];
    const pid_t parent = getppid();

    VerilatedContext context;
    Vtop top{&context};
    const auto edge = [&] {
        top.aclk = 1;
        top.eval();
        top.aclk = 0;
    };
    top.aclk = top.aresetn = top.s_axis_tvalid = top.m_axis_tready = 0;
    for (int k = 0; k < 4; ++k) top.eval(), edge();
    top.aresetn = 1;

    Word count = 0;
    put(&count, sizeof count);
    std::fflush(stdout);
    std::vector<unsigned char> given, beats(beats_out * bytes_out);
    while (get(&count, sizeof count)) {
        const Word takes = count * beats_in, gives = count * beats_out;
        given.resize(takes * bytes_in);
        if (!get(given.data(), given.size())) fail("the images were cut short");
        Word taken = 0, gave = 0, idle = 0;
        for (Word cycle = 0; taken < takes || gave < gives; ++cycle) {
            top.s_axis_tvalid = taken < takes;
            top.m_axis_tready = gave < gives;
            if (taken < takes) {
                std::memcpy(&top.s_axis_tdata, &given[taken * bytes_in], bytes_in);
                top.s_axis_tlast = (taken + 1) % beats_in == 0;
            }
            top.eval();
            const bool takes_one = top.s_axis_tvalid && top.s_axis_tready;
            const bool gives_one = top.m_axis_tvalid && top.m_axis_tready;
            if (takes_one && !taken++) put(&cycle, sizeof cycle);
            if (gives_one) {
                std::memcpy(&beats[gave % beats_out * bytes_out], &top.m_axis_tdata, bytes_out);
                const bool last = ++gave % beats_out == 0;
                if (top.m_axis_tlast != last) fail("tlast is not with the last beat of an image");
                if (last) {
                    put(&cycle, sizeof cycle);
                    put(beats.data(), beats.size());
                }
            }
            edge();
            idle = takes_one || gives_one ? 0 : idle + 1;
            if (idle > most_idle) fail("no beat moves any more");
            if (cycle % 65536 == 0 && getppid() != parent) return 1;  // nobody waits any more
        }
        std::fflush(stdout);
    }
    top.final();
    return 0;
}
