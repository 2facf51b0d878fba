// A board's top behind a serial port: a pseudo-terminal whose name is the first line printed.
//
// Arguments: cycles per bit, and silent cycles after which time stands still until a byte comes, so
// that a board without a host takes no processor.  Bytes that are written to the port come in at `rx`, one after the
// other without a pause; what goes out at `tx` can be read from it.  `leds` are written to the file
// leds whenever they change.  It ends with the process that started it.
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>

#include "Vtop.h"
#include "verilated.h"

static void fail(const char* what) {
    std::fprintf(stderr, "error: %s\n", what);
    std::exit(1);
}

static const unsigned long configured = 2048;  // cycles before a host may speak

// The bytes on a wire of 8N1: lines of their own, so that the gateware is not its own judge.
struct Sender {
    unsigned wait = 0, bits = 0, frame = 0;
    bool level = true;
    bool busy() const { return bits != 0; }
    void start(unsigned char byte, unsigned divisor) {
        frame = 0x200u | byte << 1;  // start bit, data, stop bit
        bits = 10;
        wait = divisor;
        level = false;
    }
    void step(unsigned divisor) {
        if (bits && --wait == 0) {
            frame >>= 1;
            wait = divisor;
            level = --bits ? frame & 1 : true;
        }
    }
};

struct Listener {
    unsigned wait = 0, bits = 0, byte = 0;
    bool step(bool level, unsigned divisor) {  // whether `byte` is new
        if (!bits) {
            if (!level) bits = 10, wait = divisor / 2;
            return false;
        }
        if (--wait) return false;
        wait = divisor;
        --bits;
        if (bits == 9 && level) bits = 0;
        if (bits >= 1 && bits <= 8) byte = byte >> 1 | level << 7;
        return bits == 0 && level;
    }
};

int main(int argc, char** argv) {
    if (argc != 3) fail("two arguments are needed");
    const unsigned divisor = std::strtoul(argv[1], nullptr, 10);
    const unsigned long most_quiet = std::strtoul(argv[2], nullptr, 10);
    const int port = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (port < 0 || grantpt(port) || unlockpt(port)) fail("no pseudo-terminal");
    const char* name = ptsname(port);
    const int held = open(name, O_RDWR | O_NOCTTY);  // the port stays when a host leaves it
    termios raw;
    if (held < 0 || tcgetattr(held, &raw)) fail("no pseudo-terminal");
    cfmakeraw(&raw);
    tcsetattr(held, TCSANOW, &raw);
    std::printf("%s\n", name);
    std::fflush(stdout);

    const pid_t parent = getppid();
    VerilatedContext context;
    Vtop top{&context};
    Sender sender;
    Listener listener;
    unsigned char bytes[4096];
    ssize_t taken = 0, count = 0;
    unsigned long quiet = 0, shown = ~0ul;
    unsigned long lost = 0;
    std::FILE* leds = std::fopen("leds", "w");
    if (!leds) fail("leds cannot be written");
    for (unsigned long cycle = 0;; ++cycle) {
        if (!sender.busy()) {
            if (taken == count && cycle % 64 == 0 && cycle > configured) {
                pollfd ready{port, POLLIN, 0};
                taken = count = 0;
                if (poll(&ready, 1, quiet > most_quiet ? 20 : 0) > 0 && ready.revents & POLLIN)
                    count = read(port, bytes, sizeof bytes);
                if (count < 0) count = 0;
            }
            if (taken < count) sender.start(bytes[taken++], divisor);
        }
        top.rx = sender.level;
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
        sender.step(divisor);
        if (listener.step(top.tx, divisor)) {
            const unsigned char byte = listener.byte;
            lost += write(port, &byte, 1) != 1;  // where nobody reads, as on a wire
            quiet = 0;
        }
        quiet = sender.busy() ? 0 : quiet + 1;
        if (top.leds != shown) {
            shown = top.leds;
            std::fprintf(leds, "%lx\n", shown);
            std::fflush(leds);
        }
        if (cycle % 65536 == 0 && getppid() != parent) return 1;  // nobody waits any more
    }
}
