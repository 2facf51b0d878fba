// Counts the changes in a value change dump: levels and toggles of each bit, as the dump comes.
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

// A code of a VCD, printable characters, as a number.
static int64_t number(const char* at, const char* end) {
    int64_t value = 0, scale = 1;
    for (; at < end; ++at, scale *= 94) value += (*at - 32) * scale;
    return value;
}

// Reads what follows `$enddefinitions` from `fd`, after the `held` bytes, until the code `last`
// becomes 0, and on to the end.
//
// codes: of the variables, ascending by number(); first, width: where their bits begin, the low one
// first, and how many.  times: the first and the last time stamp.  Of each bit: toggles between 0
// and 1, and how long it was 0 and 1 up to the last stamp; state: 0, 1, or 2 for neither.
// Returns 0, or 1 for a dump that is none or was cut short.
extern "C" int n2uq_switching(int fd, const char* held, int64_t size, int64_t last,
                              int64_t variables,
                              const int64_t* codes, const int64_t* first, const int64_t* width,
                              int64_t* times, int64_t* toggles, int64_t* low, int64_t* high,
                              uint8_t* state, int64_t* since) {
    const int64_t most = variables ? codes[variables - 1] + 1 : 0;
    std::vector<int32_t> at(most, -1);
    for (int64_t k = 0; k < variables; ++k) at[codes[k]] = int32_t(k);
    int64_t now = 0;
    bool any = false, ended = false;
    const auto set = [&](int64_t bit, char to) {
        const uint8_t next = to == '0' ? 0 : to == '1' ? 1 : 2;
        const uint8_t was = state[bit];
        if (was == next) return;
        if (was < 2) (was ? high : low)[bit] += now - since[bit];
        toggles[bit] += was < 2 && next < 2;
        state[bit] = next;
        since[bit] = now;
    };
    const auto line = [&](const char* from, const char* to) {
        while (to > from && (to[-1] == '\r' || to[-1] == ' ')) --to;
        if (from == to) return true;
        if (*from == '#') {
            now = std::strtoll(std::string(from + 1, to).c_str(), nullptr, 10);
            if (!any) times[0] = now;
            times[1] = now, any = true;
        } else if (*from != '$') {
            const bool vector = *from == 'b' || *from == 'B';
            const char* code = vector
                ? static_cast<const char*>(std::memchr(from, ' ', to - from)) : from;
            if (!code || ++code >= to) return false;
            const int64_t id = number(code, to);
            if (id == last && *from == '0') ended = true;
            if (id < 0 || id >= most || at[id] < 0) return true;  // outside of what is counted
            const int64_t bits = width[at[id]], begin = first[at[id]];
            if (!vector) return set(begin, *from), true;
            const int64_t given = code - 2 - from;  // digits; those left out are as the first
            if (given < 1) return false;
            for (int64_t bit = 0; bit < bits; ++bit)
                set(begin + bit, bit < given ? code[-2 - bit] : from[1] == '1' ? '0' : from[1]);
        }
        return true;
    };
    std::vector<char> text(held, held + size);
    for (size_t done = 0;;) {
        const size_t kept = text.size() - done;
        const char* from = text.data() + done;
        const void* end = kept ? std::memchr(from, '\n', kept) : nullptr;
        if (end) {
            const char* to = static_cast<const char*>(end);
            if (!ended && !line(from, to)) return 1;
            done += to + 1 - from;
            continue;
        }
        std::memmove(text.data(), from, kept);
        text.resize(kept + (1 << 20));
        const ssize_t got = read(fd, text.data() + kept, 1 << 20);
        if (got < 0) return 1;
        text.resize(kept + got);
        done = 0;
        if (got == 0) return !ended;
    }
}
