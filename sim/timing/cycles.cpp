// The clocked loop of cycles.py: valid, ready and counters of every unit, without data.
//
// A unit is evaluated in a cycle only if something that it depends on changed: the valid of an
// input, the ready of an output, its own state.  Counters that only run on are caught up with when
// the unit is next evaluated; a timer wakes it before the run changes what its neighbours see.
// `dense` evaluates every unit in every cycle, to compare with.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

enum Kind : int32_t { PIPE, JOIN, FORK, PAD, WINDOW, UP, DOWN, FIFO, SELECT, SOURCE, SINK };
// BUSY: it works on a beat (a PIPE, JOIN, UP takes one or works on one again; others take or give
// one); else BLOCKED: it offers a beat that is not taken; STARVED: it waits for one; IDLE: neither.
enum Mode : int32_t { BUSY, STARVED, BLOCKED, IDLE };

enum Outcome { DONE, STUCK, LIMIT };

constexpr int PARAMETERS = 20;  // of a row: kind, in, in1, out, beats of an image, then the kind's
constexpr int64_t SLOTS = 128;  // cycles that a timer reaches

// Members of each kind: parameters as the rows give them, then state, 0 at first.
struct Pipe {
    int32_t latency, beats, emits, folds, every, rows, row_emits, row_every;
    uint32_t valid;
    int32_t beat, fold, row;
};
struct Join { uint32_t valid; };
struct Fork { int32_t ways; uint32_t done; };
struct Pad { int32_t rows, row_beats, top, bottom, left, right; int32_t row, at; };
struct Window {
    int32_t words, turns[3], steps[3], columns, rows, depth, to_column, to_row, to_image, back;
    int32_t word, turn[3], column, row, fill, behind, valid;
    // behind: -1 - words written after the next
};
struct Convert { int32_t ratio; int32_t count, valid; };
struct Fifo { int32_t depth, block; int32_t level, valid, high; };
struct Select { int32_t first, second; int32_t at; };  // beats of both in turn; at once if 0
struct End { int32_t count, pattern, log; int32_t moved, held; };

struct Unit {
    int32_t kind, in, in1, out;
    union {
        Pipe pipe; Join join; Fork fork; Pad pad; Window window; Convert convert; Fifo fifo;
        Select select; End end;
    };
    int64_t next;  // the cycle for which the state holds
    int64_t since;  // the cycle from which on it is in `mode`
    int64_t spent[4];
    int64_t given, mark;  // beats that left; the one at which an image begins or ends next
    int32_t mode, giving, issuing, taking, running, beats, image;
};

// All that changes in a run.
struct State {
    std::vector<Unit> units;
    std::vector<uint8_t> valid, ready;
    std::vector<uint64_t> awake, timers;  // bit sets of units: one, and one for each of SLOTS cycles
    int64_t pending = 0, now = 0;
};

struct Simulation : State {
    std::vector<int32_t> producer, consumer, sinks, ends;
    std::vector<uint64_t> immediate;  // those that pass a valid on at once
    const uint8_t *const *stalls;
    const int64_t *lengths;
    int64_t *log, *images;
    const int64_t *due = nullptr;  // by when the beats in log must have moved, if at all
    int64_t work = 0;              // evaluations of units
    int64_t *over = nullptr, span = 0;  // what units spent in each `span` cycles, if asked for
    int32_t spans = 0;
    int32_t image_count;
    bool dense, late = false;

    void wake(int32_t unit) { awake[unit >> 6] |= 1ull << (unit & 63); }

    void wake_at(int32_t unit, int64_t cycle) {
        uint64_t &word = timers[cycle % SLOTS * awake.size() + (unit >> 6)];
        const uint64_t bit = 1ull << (unit & 63);
        pending += !(word & bit);
        word |= bit;
    }

    void set_ready(int32_t stream, bool value) {  // of this cycle
        if (ready[stream] != value) {
            ready[stream] = value;
            wake(producer[stream]);
        }
    }

    void set_valid(int32_t stream, bool value) {  // of the next cycle, or by `offer` of this one
        if (valid[stream] != value) {
            valid[stream] = value;
            wake(consumer[stream]);
        }
    }

    bool stall(const End &end) const { return stalls[end.pattern][now % lengths[end.pattern]]; }
    bool steady(const End &end) const {
        return lengths[end.pattern] == 1 && !stalls[end.pattern][0];
    }

    // Where the next beat of a Pad lies: 0 the frame, 1 the image, 2 the frame's first beat, which
    // waits for the image.
    static int place(const Pad &p) {
        if (p.row >= p.top && p.row < p.bottom && p.at >= p.left && p.at < p.right) return 1;
        return p.row == 0 && p.at == 0 ? 2 : 0;
    }

    static int32_t place_end(const Pad &p) {
        if (p.row == 0 && p.at == 0 && place(p) == 2) return 1;
        if (p.row < p.top || p.row >= p.bottom || p.at >= p.right) return p.row_beats;
        return p.at < p.left ? p.left : p.right;
    }

    static bool emits_row(const Pipe &p) {  // whether any beat of this row gives one
        const int32_t last = p.row - (p.rows - p.row_emits);
        return last >= 0 && last % p.row_every == 0;
    }

    // The valid of a unit of this kind, if its output is a register.
    template <int32_t kind> static bool shown(const Unit &u) {
        switch (kind) {
        case PIPE: return u.pipe.valid >> (u.pipe.latency - 1) & 1;
        case JOIN: return u.join.valid;
        case WINDOW: return u.window.valid;
        case UP: case DOWN: return u.convert.valid;
        case FIFO: return u.fifo.block ? u.fifo.valid : u.fifo.level != 0;
        default: return false;
        }
    }

    // The valid of this cycle, of units that pass it on at once.
    void offer(Unit &u) {
        if (u.kind == PAD) {
            set_valid(u.out, valid[u.in] || place(u.pad) == 0);
        } else if (u.kind == SELECT) {
            const Select &s = u.select;
            set_valid(u.out, s.first ? valid[s.at < s.first ? u.in : u.in1]
                                     : valid[u.in] && valid[u.in1]);
        } else if (u.kind == FORK) {
            for (int k = 0; k < u.fork.ways; k++)
                set_valid(u.out + k, valid[u.in] && !(u.fork.done >> k & 1));
        } else {
            End &e = u.end;
            set_valid(u.out, e.moved != e.count && (e.held || !stall(e)));
        }
    }

    // Let the counters run on to this cycle, as they did in the last one.
    void catch_up(Unit &u) {
        const int32_t n = int32_t(now - u.next);
        u.next = now;
        if (n <= 0 || !u.running) return;
        switch (u.kind) {
        case PIPE:
            u.pipe.beat += n * u.issuing;
            u.pipe.valid = n < 32 ? u.pipe.valid << n : 0;
            break;
        case PAD:
            u.pad.at += n * u.giving;
            break;
        case WINDOW:
            u.window.word += n * u.issuing;
            u.window.fill += n * u.taking;
            u.window.behind += n * (u.issuing - u.taking);
            break;
        case UP:
            u.convert.count += n * u.taking;
            break;
        case DOWN:
            u.convert.count += n * u.giving;
            break;
        case FIFO:
            u.fifo.level += n * (u.taking - u.giving);
            u.fifo.high = std::max(u.fifo.high, u.fifo.level);
            break;
        case SOURCE: case SINK:
            u.end.moved += n * u.giving;
            break;
        default: break;
        }
    }

    // Book the cycles since the last evaluation, and the beats that left in them.
    void account(Unit &u) {
        const int64_t n = now - u.since;
        u.spent[u.mode] += n;
        for (int64_t at = u.since; over && at < now;) {
            const int64_t k = std::min<int64_t>(at / span, spans - 1);
            const int64_t end = k == spans - 1 ? now : std::min(now, (k + 1) * span);
            over[((&u - units.data()) * spans + k) * 4 + u.mode] += end - at;
            at = end;
        }
        if (u.giving) {
            if (u.kind >= SOURCE && u.end.log >= 0)
                for (int64_t k = 0; k < n && u.given + k < u.end.count; k++) {
                    const int64_t at = u.end.log + u.given + k;
                    log[at] = u.since + k;
                    late |= due && u.since + k > due[at];
                }
            while (u.mark < u.given + n) {  // the first and the last beat of each image
                int64_t *at = images + (int64_t(&u - units.data()) * image_count + u.image) * 2;
                const bool first = u.mark == int64_t(u.image) * u.beats;
                const int64_t cycle = u.since + u.mark - u.given;
                if (first) at[0] = cycle;
                if (!first || u.beats == 1) {
                    at[1] = cycle;
                    u.image++;
                }
                u.mark = first && u.beats > 1 ? u.mark + u.beats - 1 : u.mark + 1;
                if (u.image == image_count) u.mark = INT64_MAX;
            }
            u.given += n;
        }
        u.since = now;
    }

    // One clock cycle of a unit: its ready, its state after it, what it did.
    // Returns for how many cycles more its counters only run on; -1 if for good.
    template <int32_t kind> int64_t clock(Unit &u) {
        bool took = false, gave = false, issue = false, changed = false;
        int64_t runs = 0;
        const bool offered = kind != SOURCE && valid[u.in];
        const bool free = kind == FORK || kind == SINK || ready[u.out];
        const bool showed = kind == PAD || kind == SELECT ? valid[u.out]
            : kind != FORK && shown<kind>(u);
        const bool enable = !showed || free;
        gave = showed && free;
        switch (kind) {
        case PIPE: {
            Pipe &p = u.pipe;
            const bool replay = p.fold != 0;
            issue = enable && (replay || offered);
            set_ready(u.in, enable && !replay);
            took = issue && !replay;
            if (!enable) break;
            const uint32_t before = p.valid;
            const int32_t last = p.beat - (p.beats - p.emits);
            const bool emits = issue && last >= 0 && (p.every == 1 || last % p.every == 0)
                && emits_row(p);
            p.valid = (p.valid << 1 | emits) & ((2u << (p.latency - 1)) - 1);
            if (issue && ++p.beat == p.beats) {
                p.beat = 0;
                if (++p.row == p.rows) p.row = 0;
                if (++p.fold == p.folds) p.fold = 0;
            }
            changed = p.valid != before || (issue && (p.beats > 1 || p.folds > 1 || p.rows > 1));
            if (!showed && !shown<kind>(u) && (p.fold != 0) == replay
                && (p.fold != 0 || offered) == issue) {
                runs = p.valid ? p.latency - 2 - (31 - __builtin_clz(p.valid)) : SLOTS;
                if (issue) runs = std::min<int64_t>(
                    runs, p.beats - p.beat - (emits_row(p) ? p.emits : 1));
            }
            break;
        }
        case JOIN: {
            const bool both = offered && valid[u.in1];
            set_ready(u.in, enable && valid[u.in1]);
            set_ready(u.in1, enable && offered);
            took = enable && both;
            if (!enable) break;
            changed = u.join.valid != uint32_t(both);
            u.join.valid = both;
            break;
        }
        case FORK: {
            Fork &f = u.fork;
            uint32_t takes = 0;
            for (int k = 0; k < f.ways; k++) takes |= uint32_t(ready[u.out + k]) << k;
            const uint32_t all = uint32_t((1ull << f.ways) - 1);
            const bool pass = ((f.done | takes) & all) == all;
            set_ready(u.in, pass);
            if (offered) {
                const uint32_t done = pass ? 0 : f.done | takes;
                gave = (takes & ~f.done & all) != 0;
                took = pass;
                changed = done != f.done;
                f.done = done;
            }
            break;
        }
        case PAD: {
            Pad &p = u.pad;
            const bool inside = place(p) == 1;
            set_ready(u.in, free && inside);
            took = gave && inside;
            if (!gave) break;
            changed = true;
            const bool frame = place(p) == 0;
            if (++p.at == p.row_beats) {
                p.at = 0;
                if (++p.row == p.rows) p.row = 0;
            }
            const int now_at = place(p);
            if (now_at == (inside ? 1 : 0) && (inside || frame)) runs = place_end(p) - 1 - p.at;
            break;
        }
        case WINDOW: {
            Window &w = u.window;
            const bool room = w.fill != w.depth;
            issue = enable && w.behind < 0;
            set_ready(u.in, room);
            took = offered && room;
            int32_t step = 1, release = 0;
            if (issue && ++w.word == w.words) {
                w.word = 0;
                int k = 0;
                do step = w.steps[k];
                while (++w.turn[k] == w.turns[k] && (w.turn[k] = 0, ++k < 3));
                if (k == 3) {
                    release = w.to_column;
                    if (++w.column == w.columns) {
                        w.column = 0;
                        release = w.to_row;
                        if (++w.row == w.rows) {
                            w.row = 0;
                            release = w.to_image;
                        }
                    }
                    step = release - w.back;
                }
            }
            w.fill += took - release;
            w.behind += (issue ? step : 0) - took;
            changed = took || issue || (enable && w.valid != int32_t(issue));
            if (enable) w.valid = issue;
            const bool issues = (!w.valid || free) && w.behind < 0;
            const bool takes = offered && w.fill != w.depth;
            if (issues == issue && takes == took && showed == (w.valid != 0)
                && room == (w.fill != w.depth)) {
                runs = SLOTS;
                if (issues) runs = std::min<int64_t>(w.words - 1 - w.word, takes ? runs : -w.behind);
                if (takes) runs = std::min<int64_t>(runs, w.depth - w.fill);
                if (takes && !issues && enable) runs = std::min<int64_t>(runs, w.behind + 1);
            }
            break;
        }
        case UP: {
            Convert &c = u.convert;
            const bool last = c.count == c.ratio - 1;
            set_ready(u.in, !last || enable);
            took = offered && ready[u.in];
            changed = took || gave;
            if (free) c.valid = 0;
            if (took) {
                c.count = last ? 0 : c.count + 1;
                if (last) c.valid = 1;
            }
            if (took && !gave && !(c.valid && free)) runs = c.ratio - 1 - c.count;
            break;
        }
        case DOWN: {
            Convert &c = u.convert;
            const bool last = c.count == c.ratio - 1;
            set_ready(u.in, !showed || (free && last));
            took = offered && ready[u.in];
            if (gave) c.count = last ? 0 : c.count + 1;
            changed = gave || (ready[u.in] && c.valid != int32_t(offered));
            if (ready[u.in]) c.valid = offered;
            if (gave && !last) runs = c.ratio - 1 - c.count;
            break;
        }
        case FIFO: {
            Fifo &f = u.fifo;
            set_ready(u.in, f.level != f.depth);
            took = offered && f.level != f.depth;
            const int32_t valid_next = f.level != int32_t(gave);
            changed = took != gave || (f.block && f.valid != valid_next);
            f.valid = valid_next;
            f.high = std::max(f.high, f.level + took);
            f.level += took - gave;
            if (took != gave && f.level >= 2 && f.level < f.depth && showed && free == gave
                && ready[u.in])
                runs = took ? f.depth - f.level : f.level - 1;
            break;
        }
        case SELECT: {
            Select &s = u.select;
            const bool both = s.first == 0;
            set_ready(u.in, free && (both ? valid[u.in1] : s.at < s.first));
            set_ready(u.in1, free && (both ? offered : s.at >= s.first));
            took = gave;
            changed = gave && !both;
            if (changed && ++s.at == s.first + s.second) s.at = 0;
            break;
        }
        case SOURCE: {
            End &e = u.end;
            gave = valid[u.out] && free;
            changed = !steady(e) || gave;
            e.held = valid[u.out] && !free;
            e.moved += gave;
            if (gave && steady(e)) runs = e.count - e.moved;
            break;
        }
        case SINK: {
            End &e = u.end;
            set_ready(u.in, !stall(e));
            gave = took = offered && ready[u.in];
            changed = !steady(e) || gave;
            e.moved += gave;
            if (gave && steady(e)) runs = e.count - e.moved - 1;
            break;
        }
        }
        if (kind != SOURCE && kind != SINK && kind != PAD && kind != FORK && kind != SELECT)
            set_valid(u.out, shown<kind>(u));
        u.issuing = issue;
        u.taking = took;
        u.giving = kind == FORK ? took : gave;
        u.running = changed && runs > 0;
        const bool starved = kind == JOIN ? enable : kind == PAD || kind == SELECT ? !showed
            : kind == FORK ? !offered : kind != SOURCE && ready[u.in] && !offered;
        const bool blocked = kind == SOURCE ? u.end.held : kind == FORK ? offered
            : showed && !free;
        const bool busy = kind == PIPE ? issue : kind == JOIN || kind == UP ? took
            : took || gave;
        u.mode = busy ? BUSY : blocked ? BLOCKED : starved ? STARVED : IDLE;
        u.next = now + 1;
        return changed ? std::max<int64_t>(runs, 0) : -1;
    }

    int64_t clock(Unit &u) {
        switch (u.kind) {
        case PIPE: return clock<PIPE>(u);
        case JOIN: return clock<JOIN>(u);
        case FORK: return clock<FORK>(u);
        case PAD: return clock<PAD>(u);
        case WINDOW: return clock<WINDOW>(u);
        case UP: return clock<UP>(u);
        case DOWN: return clock<DOWN>(u);
        case FIFO: return clock<FIFO>(u);
        case SELECT: return clock<SELECT>(u);
        case SOURCE: return clock<SOURCE>(u);
        default: return clock<SINK>(u);
        }
    }

    void evaluate(int32_t k) {
        Unit &u = units[k];
        work++;
        account(u);
        const int64_t runs = clock(u);
        if (dense || runs == 0) wake(k);
        else if (runs > 0) wake_at(k, now + 1 + std::min(runs, SLOTS - 2));
    }

    void wake_all() {
        for (auto &word : awake) word = ~0ull;
        if (units.size() % 64) awake.back() = (1ull << units.size() % 64) - 1;
    }

    // All counters and books up to now.
    void settle() {
        for (Unit &u : units) {
            account(u);
            catch_up(u);
        }
    }

    // All units until each sink has its beats, nothing moves any more or the cycle `limit`.
    Outcome run(int64_t limit) {
        const int32_t words = int32_t(awake.size());
        for (; now < limit; now++) {
            uint64_t *timer = &timers[now % SLOTS * words];
            for (int32_t w = 0; w < words; w++) {
                pending -= __builtin_popcountll(timer[w]);
                awake[w] |= timer[w];
                timer[w] = 0;
            }
            for (int32_t w = 0; w < words; w++) {
                uint64_t seen = 0;
                while (const uint64_t left = awake[w] & immediate[w] & ~seen) {
                    const int32_t bit = __builtin_ctzll(left);
                    seen |= (2ull << bit) - 1;
                    catch_up(units[w * 64 + bit]);
                    offer(units[w * 64 + bit]);
                }
            }
            for (int32_t w = words - 1; w >= 0; w--) {
                uint64_t open = ~0ull;
                while (const uint64_t left = awake[w] & open) {
                    const int32_t bit = 63 - __builtin_clzll(left);
                    open = (1ull << bit) - 1;
                    awake[w] &= ~(1ull << bit);
                    catch_up(units[w * 64 + bit]);
                    evaluate(w * 64 + bit);
                }
            }
            bool done = true;
            for (int32_t k : sinks) done &= units[k].end.moved >= units[k].end.count;
            if (done) {
                now++;
                return DONE;
            }
            if (!pending && stuck()) return STUCK;
        }
        return LIMIT;
    }

    // Nothing moves and nothing will, whatever the patterns of sources and sinks.
    bool stuck() {
        std::vector<uint64_t> left = awake;
        for (int32_t k : ends) {
            const Unit &u = units[k];
            left[k >> 6] &= ~(1ull << (k & 63));
            if (u.giving || (u.kind == SINK ? valid[u.in] != 0
                             : u.end.moved != u.end.count && !u.end.held)) return false;
        }
        return std::all_of(left.begin(), left.end(), [](uint64_t word) { return !word; });
    }
};

struct Change { int32_t fifo, depth, block; };

// A run that is kept, and trials of it with other FIFOs: each is run from where it first differs
// from the kept one until both are in the same state again.
struct Search : Simulation {
    std::vector<State> marks;  // of the kept run: one every `step` cycles, and its end
    std::vector<int64_t> kept_log, kept_images;
    std::vector<Change> changes;                  // of the last trial
    std::vector<std::pair<size_t, State>> fresh;  // its marks, by number, where it differs
    size_t end;                                   // how many it has
    int64_t step;

    void mark(size_t at) {
        settle();
        fresh.emplace_back(at, *this);
        measure();
    }

    // From now on `high` is of the time up to the next mark.
    void measure() {
        for (Unit &u : units)
            if (u.kind == FIFO) u.fifo.high = u.fifo.level;
    }

    void apply(State &state) const {
        for (const Change &c : changes) {
            state.units[c.fifo].fifo.depth = c.depth;
            state.units[c.fifo].fifo.block = c.block;
        }
    }

    // The first mark from `at` on after which a changed FIFO would not do what it does in the kept
    // run: it has no room for a beat that came, or it has where the kept one was full.
    size_t differs(size_t at) const {
        for (; at + 1 < marks.size(); at++)
            for (const Change &c : changes) {
                const int32_t depth = marks[0].units[c.fifo].fifo.depth;
                const int32_t high = marks[at + 1].units[c.fifo].fifo.high;
                if (c.depth < depth ? high > c.depth : c.depth > depth && high >= depth) return at;
            }
        return at;
    }

    bool same(const State &other) const {
        for (size_t k = 0; k < units.size(); k++) {
            const Unit &a = units[k], &b = other.units[k];
            if (a.kind == FIFO ? a.fifo.level != b.fifo.level || a.fifo.valid != b.fifo.valid
                               : memcmp(&a.window, &b.window, sizeof a.window) != 0) return false;
        }
        return true;
    }

    // Go on from a mark of the kept run, with what the units spent until the last fresh mark.
    void resume(size_t at) {
        static_cast<State &>(*this) = marks[at];
        if (!fresh.empty()) spend(*this, fresh.back());
        measure();
        apply(*this);
        wake_all();
    }

    // Add what units spent more in a trial than in the kept run when both came to the same state.
    void spend(State &state, const std::pair<size_t, State> &met) const {
        for (size_t k = 0; k < units.size(); k++)
            for (int mode = 0; mode < 4; mode++)
                state.units[k].spent[mode] += met.second.units[k].spent[mode]
                                              - marks[met.first].units[k].spent[mode];
    }

    // Whether a beat has moved late, or should have moved by now.
    bool overdue() {
        settle();
        for (const int32_t k : sinks)
            late |= due && units[k].end.moved < units[k].end.count
                    && due[units[k].end.log + units[k].end.moved] < now;
        return late;
    }

    // What moved in the kept run, and not before the end of this one.
    void forget() {
        for (const int32_t k : ends)
            std::fill(log + units[k].end.log + std::min<int64_t>(units[k].given, units[k].end.count),
                      log + units[k].end.log + units[k].end.count, -1);
        for (size_t k = 0; k < units.size(); k++) {
            const Unit &u = units[k];
            const int64_t first = 2 * int64_t(u.image) + (u.mark != int64_t(u.image) * u.beats);
            int64_t *at = images + int64_t(k) * image_count * 2;
            for (int64_t n = first; n < 2 * image_count; n++) at[n] = -1;
        }
    }

    // Run with the changes, `anew` or only where that makes a difference; whether all beats move,
    // none of them late.
    bool attempt(bool anew) {
        std::copy(kept_log.begin(), kept_log.end(), log);
        std::copy(kept_images.begin(), kept_images.end(), images);
        fresh.clear();
        end = marks.size();
        // With another latency, the same state means something else.
        for (const Change &c : changes) anew |= marks[0].units[c.fifo].fifo.block != c.block;
        size_t at = anew ? 0 : differs(0);
        if (at + 1 < end) resume(at);
        late = false;
        while (at + 1 < end) {
            const Outcome outcome = run((now / step + 1) * step);
            if (overdue() || outcome == STUCK) return false;
            mark(++at);
            if (outcome == DONE) {
                end = at + 1;
                forget();
            } else if (at + 1 >= end) {
                end = at + 2;
            } else if (!anew && same(marks[at]) && (at = differs(at)) + 1 < end) {
                resume(at);
            }
        }
        return true;
    }

    // The last trial is the kept run from now on.
    void keep() {
        const size_t before = marks.size();
        for (size_t k = 0; k < fresh.size(); k++) {  // what follows it, up to the next, is as it was
            const size_t next = k + 1 < fresh.size() ? fresh[k + 1].first : std::min(end, before);
            for (size_t at = fresh[k].first + 1; at < next; at++) spend(marks[at], fresh[k]);
        }
        marks.resize(end);
        for (auto &[at, state] : fresh) marks[at] = std::move(state);
        for (State &state : marks) apply(state);
        fresh.clear();
        kept_log.assign(log, log + kept_log.size());
        kept_images.assign(images, images + kept_images.size());
    }
};

void set_up(
    Simulation &s, int32_t count, const int32_t *rows, int32_t streams,
    const uint8_t *const *stalls, const int64_t *lengths, int64_t *log, int32_t image_count,
    int64_t *images, int32_t dense) {
    s.units.resize(count);
    s.producer.assign(streams, 0);
    s.consumer.assign(streams, 0);
    s.valid.assign(streams, 0);
    s.ready.assign(streams, 0);
    s.awake.assign((count + 63) / 64, 0);
    s.immediate = s.awake;
    s.timers.assign(SLOTS * s.awake.size(), 0);
    s.stalls = stalls;
    s.lengths = lengths;
    s.log = log;
    s.images = images;
    s.image_count = image_count;
    s.dense = dense != 0;
    for (int32_t k = 0; k < count; k++) {
        const int32_t *row = rows + k * PARAMETERS;
        Unit &u = s.units[k];
        memset(static_cast<void *>(&u), 0, sizeof u);
        u.kind = row[0];
        u.in = row[1];
        u.in1 = row[2];
        u.out = row[3];
        u.beats = row[4];
        memcpy(static_cast<void *>(&u.pipe), row + 5, (PARAMETERS - 5) * sizeof(int32_t));
        if (u.in >= 0) s.consumer[u.in] = k;
        if (u.in1 >= 0) s.consumer[u.in1] = k;
        for (int32_t way = 0; u.out >= 0 && way < (u.kind == FORK ? u.fork.ways : 1); way++)
            s.producer[u.out + way] = k;
        if (u.kind == PAD || u.kind == FORK || u.kind == SELECT || u.kind == SOURCE)
            s.immediate[k >> 6] |= 1ull << (k & 63);
        if (u.kind >= SOURCE) s.ends.push_back(k);
        if (u.kind == SINK) s.sinks.push_back(k);
        u.mode = IDLE;
    }
    s.wake_all();
}

// What a run ended with: cycles, negative if it did not come to its end.
int64_t report(const State &end, bool whole, int64_t *spent, int32_t *high, int64_t *moved) {
    for (size_t k = 0; k < end.units.size(); k++) {
        const Unit &u = end.units[k];
        memcpy(spent + 4 * k, u.spent, sizeof u.spent);
        high[k] = u.kind == FIFO ? u.fifo.high : 0;
        moved[k] = u.given;
    }
    return whole ? end.now : -1 - end.now;
}

}  // namespace

// Runs `count` units, one row of PARAMETERS each, in topological order, joined by `streams`.
//
// stalls, lengths: patterns by number, a byte per cycle, over again when they end.
// log: the cycle of each beat of sources and sinks, from the place in it that each of them has.
// images: [count][image_count][2], the cycles of the first and last beat of each image, or -1.
// spent: [count][4], cycles in each Mode.
// high: [count], the most beats in a FIFO, one that comes as another leaves counted too.
// moved: [count], beats that left.
// over: [count][spans][4], cycles in each Mode in each `span` cycles, the rest in the last; or null.
// Returns the cycles until every sink has its beats; -1 - cycles if nothing moves any more or
// `limit` is reached.
extern "C" int64_t n2uq_cycles(
    int32_t count, const int32_t *rows, int32_t streams, const uint8_t *const *stalls,
    const int64_t *lengths, int64_t *log, int32_t image_count, int64_t *images, int64_t limit,
    int64_t *spent, int32_t *high, int64_t *moved, int32_t dense, int64_t *over, int64_t span,
    int32_t spans) {
    Simulation s;
    set_up(s, count, rows, streams, stalls, lengths, log, image_count, images, dense);
    s.over = over;
    s.span = span;
    s.spans = spans;
    const bool whole = s.run(limit) == DONE;
    s.settle();
    return report(s, whole, spent, high, moved);
}

// The same as a run that is kept, with a mark every `step` cycles; null if it comes to no end.
extern "C" Search *n2uq_search(
    int32_t count, const int32_t *rows, int32_t streams, const uint8_t *const *stalls,
    const int64_t *lengths, int64_t *log, int64_t logged, int32_t image_count, int64_t *images,
    int64_t step) {
    Search *s = new Search;
    set_up(*s, count, rows, streams, stalls, lengths, log, image_count, images, 0);
    s->kept_log.assign(log, log + logged);
    s->kept_images.assign(images, images + int64_t(count) * image_count * 2);
    s->step = step;
    s->marks.assign(2, *s);
    if (s->attempt(true)) {
        s->keep();
        return s;
    }
    delete s;
    return nullptr;
}

// Whether the run comes to its end with other FIFOs, no beat in log later than `due` has it.
// changes: rows of unit, depth, and whether it lies in block RAM.
extern "C" int32_t n2uq_attempt(
    Search *s, int32_t count, const int32_t *changes, const int64_t *due) {
    s->changes.clear();
    for (int32_t k = 0; k < count; k++, changes += 3)
        s->changes.push_back({changes[0], changes[1], changes[2]});
    s->due = due;
    return s->attempt(false);
}

// The run of the last attempt is kept.
extern "C" void n2uq_keep(Search *s) { s->keep(); }

// What n2uq_cycles returns, of the kept run.
extern "C" int64_t n2uq_kept(Search *s, int64_t *spent, int32_t *high, int64_t *moved) {
    std::copy(s->kept_log.begin(), s->kept_log.end(), s->log);
    std::copy(s->kept_images.begin(), s->kept_images.end(), s->images);
    const int64_t cycles = report(s->marks.back(), true, spent, high, moved);
    for (const State &mark : s->marks)
        for (size_t k = 0; k < mark.units.size(); k++)
            if (mark.units[k].kind == FIFO) high[k] = std::max(high[k], mark.units[k].fifo.high);
    return cycles;
}

// Evaluations of units up to now.
extern "C" int64_t n2uq_work(const Search *s) { return s->work; }

extern "C" void n2uq_close(Search *s) { delete s; }
