// Runs samples through the accelerator under Verilator and writes down what it does.
//
//     bench EVENTS JOBS WORDS LIMIT EARLY
//
// EVENTS: int32: samples, steps; then per sample and step: how many events, and for each {value,
// number} as one word. JOBS: int32 rows: kind, sample, engine, layer, step, cycle, rows, pushes,
// reads, adds, stalls. WORDS: int32 rows: sample, engine, layer, step, word, spikes (two words),
// v and u of all banks. LIMIT: cycles after which a sample is taken to hang (exit 3). EARLY: 1 to let
// samples stop early. A scan of the readout is a row of JOBS: kind, sample, class, whether it stops,
// step, cycle; the end of a sample: kind, sample, result, 0, 0, cycle.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vaccelerator.h"
#include "engines.h"  // BANKS, V_BITS, VALUE_BITS, ID_BITS, ENGINES(X): X(number, bits of u)
#include "verilated.h"

static int64_t field(const uint32_t* words, int low, int width) {
    uint64_t found = 0;
    for (int got = 0; got < width;) {
        const int at = low + got, take = 32 - at % 32;
        found |= static_cast<uint64_t>(words[at / 32] >> (at % 32)) << got;
        got += take;
    }
    const int unused = 64 - width;
    return static_cast<int64_t>(found << unused) >> unused;
}
template <class T>
static int64_t field(const T& word, int low, int width) {
    if constexpr (sizeof(T) <= 8) {
        const int unused = 64 - width;
        return static_cast<int64_t>((static_cast<uint64_t>(word) >> low) << unused) >> unused;
    } else {
        return field(static_cast<const uint32_t*>(word.data()), low, width);
    }
}
static int64_t bits(int64_t value, int width) {
    return width == 64 ? value : value & ((int64_t{1} << width) - 1);
}

enum Kind { BEGAN, INGESTED, SWEEPING, SWEPT, SCANNED, DONE };

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    FILE* in = std::fopen(argv[1], "rb");
    FILE* jobs = std::fopen(argv[2], "wb");
    FILE* words = std::fopen(argv[3], "wb");
    const int64_t limit = std::atoll(argv[4]);
    if (!in || !jobs || !words) return 2;
    auto next = [&] {
        int32_t value;
        if (std::fread(&value, 4, 1, in) != 1) std::exit(2);
        return value;
    };
    auto context = std::make_unique<VerilatedContext>();
    auto top = std::make_unique<Vaccelerator>(context.get());
    auto tick = [&] {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
    };
    top->reset = 1;
    top->start = 0;
    top->s_tvalid = 0;
    top->early = std::atoi(argv[5]);
    for (int i = 0; i < 4; i++) tick();
    top->reset = 0;
    const int samples = next(), steps = next();
    std::vector<int32_t> row;
    for (int sample = 0; sample < samples; sample++) {
        std::vector<std::vector<int32_t>> events(steps);
        for (auto& step : events) {
            step.resize(next());
            for (auto& event : step) event = next();
        }
        top->start = 1;
        top->steps = steps;
        top->s_tvalid = 0;
        tick();
        top->start = 0;
        size_t step = 0, at = 0;
        for (int64_t cycle = 0;; cycle++) {
            if (cycle > limit) return 3;
            const bool open = step < events.size();
            top->s_tvalid = open;
            top->s_tuser = open && events[step].empty();
            top->s_tdata = open && !events[step].empty() ? events[step][at] : 0;
            top->s_tlast = open && at + 1 >= events[step].size();
            top->eval();
            const bool taken = top->s_tvalid && top->s_tready;
            if (taken && top->s_tlast) {
                step++;
                at = 0;
            } else if (taken) {
                at++;
            }
            auto job = [&](Kind kind, int engine, int layer, int when, int64_t now, const int64_t* counts) {
                row = {kind, sample, engine, layer, when, static_cast<int32_t>(now)};
                for (int i = 0; i < 5; i++) row.push_back(counts ? static_cast<int32_t>(counts[i]) : 0);
                std::fwrite(row.data(), 4, row.size(), jobs);
            };
#define WATCH(N, U_BITS)                                                                             \
    if (top->e##N##_began) job(BEGAN, N, top->e##N##_job_layer, top->e##N##_job_step, cycle, nullptr); \
    if (top->e##N##_ended) {                                                                         \
        const int64_t counts[] = {top->e##N##_rows, top->e##N##_pushes, top->e##N##_reads,           \
                                  top->e##N##_adds, top->e##N##_stalls};                             \
        job(INGESTED, N, top->e##N##_job_layer, top->e##N##_job_step, cycle + 1, counts);            \
    }                                                                                                \
    if (top->e##N##_swept_from)                                                                      \
        job(SWEEPING, N, top->e##N##_put_layer, top->e##N##_put_step, cycle, nullptr);               \
    if (top->e##N##_commit)                                                                          \
        job(SWEPT, N, top->e##N##_put_layer, top->e##N##_put_step, cycle + 1, nullptr);              \
    if (top->e##N##_put) {                                                                           \
        const int64_t mask = bits(field(top->e##N##_put_mask, 0, BANKS), BANKS);                     \
        row = {sample, N, static_cast<int32_t>(top->e##N##_put_layer),                               \
               static_cast<int32_t>(top->e##N##_put_step),                                           \
               static_cast<int32_t>(top->e##N##_put_word), static_cast<int32_t>(mask),               \
               static_cast<int32_t>(mask >> 32)};                                                    \
        for (int b = 0; b < BANKS; b++)                                                              \
            row.push_back(static_cast<int32_t>(field(top->e##N##_put_v, b * V_BITS, V_BITS)));       \
        for (int b = 0; b < BANKS; b++)                                                              \
            row.push_back(static_cast<int32_t>(field(top->e##N##_put_u, b * (U_BITS), U_BITS)));     \
        std::fwrite(row.data(), 4, row.size(), words);                                               \
    }
            ENGINES(WATCH)
            if (top->scanned)
                job(SCANNED, top->result, top->stops, top->at_step, cycle + 1, nullptr);
            if (top->done) {
                job(DONE, top->result, 0, 0, cycle, nullptr);
                break;
            }
            tick();
        }
    }
    const bool whole = std::fclose(jobs) == 0 && std::fclose(words) == 0;
    top->final();
    return whole ? 0 : 2;
}
