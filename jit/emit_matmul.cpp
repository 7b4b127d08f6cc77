// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_matmul.hpp"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>

#include "jit/emit_ahead.hpp"
#include "jit/panel_claims.hpp"

namespace deepcpu::jit {
namespace {
constexpr auto kNear = Xbyak::CodeGenerator::T_NEAR;
/// Steps over k between two pieces of what is woven in. 1, 2, 3 and 4 were compared: the least of
/// five medians for lstm i16h48 is 34.0, 32.6, 32.2, 32.9 us, i64h64 81.2, 81.3, 80.7, 80.9.
constexpr int kWeave = 2;
/// Walks through the weights that are fetched. An epilogue, which takes it for its own row, does
/// not run meanwhile.
const Xbyak::Reg64& kFetch = reg::own_row;
}  // namespace

using Xbyak::util::dword;
using Xbyak::util::ptr;

template <class Vmm>
void MatmulEmitter<Vmm>::emit() {
  if (waits_ != nullptr) waits_->begin();
  sums_.start();
  run();
  sums_.part();
}

template <class Vmm>
void MatmulEmitter<Vmm>::run() {
  for (const Product& p : stage_.products) product(p);
}

template <class Vmm>
void MatmulEmitter<Vmm>::emit_woven(int pieces, std::function<void()> next) {
  pieces_ = pieces;
  next_piece_ = std::move(next);
  emit();
  for (; pieces_ > 0; --pieces_) next_piece_();
}

template <class Vmm>
void MatmulEmitter<Vmm>::note(const Product& p) {
  ctx_.record.note("sums += " + ctx_.plan.buffers[p.operand.buffer].name + " * " + p.note);
}

template <class Vmm>
int MatmulEmitter<Vmm>::k_bytes(const Product& p) const {
  return static_cast<int>(p.gates_packed) * ctx_.kBytes;
}

/// About 32 multiply-adds per turn of the loop: enough to hide its overhead, small enough for the
/// micro-op cache. Where products look at what they read, a vector of it; where they fetch, as many
/// steps as that is counted in; where they load four numbers at a time, a multiple of that.
template <class Vmm>
int MatmulEmitter<Vmm>::unroll(const Product& p) const {
  const int per_step = tile_.rows * terms_.count(p);
  const int turns = std::clamp(32 / per_step, 2, 16);
  const int chains = static_cast<int>(p.chains);
  if (waits(p)) return std::lcm(chains, VecCode<Vmm>::kLanes);
  int unit = chains;
  if (fetches(p)) unit = std::lcm(chains, static_cast<int>(Product::kFetchSteps));
  if (by_four()) unit = std::lcm(chains, kFour);
  return (turns + unit - 1) / unit * unit;
}

template <class Vmm>
void MatmulEmitter<Vmm>::product(const Product& p) {
  auto& code = ctx_.code;
  note(p);
  point_rows(p);
  if (!ctx_.plan.weights_in_registers) point_weights(p);
  if (fetches(p)) point_fetch(p, std::uint64_t{p.k} * static_cast<std::uint64_t>(k_bytes(p)));
  clear_chains(p);
  const int k = static_cast<int>(p.k);
  const int turn = unroll(p);
  const int head = head_steps(p, turn);
  // Two turns or fewer are cheaper as straight code.
  if (k - head <= 2 * turn || ctx_.plan.weights_in_registers) {
    steps(p, 0, k, false);
  } else {
    const int looped = head + (k - head) / turn * turn;
    steps(p, 0, head, false);
    if (head > 0) code.add(reg::weights, imm(head * k_bytes(p)));
    code.mov(reg::k.cvt32(), imm(head));
    loop_turns(p, turn, imm(looped));
    steps(p, 0, k - looped, true);
  }
  if (fetches(p)) code.add(fetched(p), imm(fetch_bytes(p, k)));
  join_chains(p);
}

/// `turn` steps over k again and again until reg::k reaches `end`, a number or where one stands.
template <class Vmm>
template <class End>
void MatmulEmitter<Vmm>::loop_turns(const Product& p, int turn, const End& end) {
  auto& code = ctx_.code;
  Xbyak::Label loop;
  code.align(32);
  ctx_.record.label(stage_.name + ".k");
  code.L(loop);
  steps(p, 0, turn, true);
  code.add(reg::weights, imm(turn * k_bytes(p)));
  if (fetches(p)) code.add(kFetch, imm(fetch_bytes(p, turn)));
  code.add(reg::k, imm(turn));
  code.cmp(reg::k, end);
  code.jb(loop, kNear);
}

template <class Vmm>
void MatmulEmitter<Vmm>::piece(const Product& p, std::uint32_t k_block,
                               const Xbyak::Address& start) {
  auto& code = ctx_.code;
  note(p);
  point_rows(p);
  point_weights(p);
  code.mov(reg::k, start);
  code.imul(reg::scratch, reg::k, k_bytes(p));
  code.add(reg::weights, reg::scratch);
  if (fetches(p)) point_fetch(p, std::uint64_t{k_block} * static_cast<std::uint64_t>(k_bytes(p)));
  // A power of two of at most 16, which divides the piece.
  const auto turn =
      static_cast<int>(std::min(std::bit_floor(static_cast<unsigned>(unroll(p))), 16U));
  const int rest = static_cast<int>(p.k) % turn;
  const int looped = static_cast<int>(p.k) - rest;
  const Xbyak::Address end = ctx_.frame.slot("piece end");
  Xbyak::Label whole;
  Xbyak::Label done;
  code.lea(reg::scratch, ptr[reg::k + k_block]);
  code.cmp(reg::scratch, imm(looped));
  code.jbe(whole);
  code.mov(reg::scratch.cvt32(), imm(looped));
  code.L(whole);
  code.mov(end, reg::scratch);
  if (fetches(p)) {
    code.sub(reg::scratch, reg::k);
    code.imul(reg::scratch, reg::scratch, fetch_bytes(p, turn));
    code.shr(reg::scratch, std::countr_zero(static_cast<unsigned>(turn)));
    code.add(fetched(p), reg::scratch);
  }
  code.cmp(reg::k, end);
  code.jae(done, kNear);
  loop_turns(p, turn, end);
  code.L(done);
  if (rest == 0) return;
  // Only the last piece has these.
  Xbyak::Label next;
  code.cmp(start, (p.k - 1) / k_block * k_block);
  code.jne(next, kNear);
  steps(p, 0, rest, true);
  if (fetches(p)) code.add(fetched(p), imm(fetch_bytes(p, rest)));
  code.L(next);
}

/// Steps of straight code in front of the loop, so that what is woven in finds its place there.
template <class Vmm>
int MatmulEmitter<Vmm>::head_steps(const Product& p, int turn) const {
  const int wanted = pieces_ * kWeave;
  const int turns = (wanted + turn - 1) / turn;
  return std::min(turns * turn, static_cast<int>(p.k) / turn * turn);
}

template <class Vmm>
void MatmulEmitter<Vmm>::point_rows(const Product& p) {
  ctx_.row_pointer(reg::pointer[0], p.operand, reg::row);
  for (int row = 1; row < tile_.rows; ++row) {
    ctx_.next_row(reg::pointer[row], reg::pointer[row - 1], p.operand, row);
  }
}

/// reg::weights = where the product's weights of a panel begin.
template <class Vmm>
void MatmulEmitter<Vmm>::point_weights(const Product& p, const Xbyak::Reg64& panel) {
  auto& code = ctx_.code;
  code.mov(reg::weights, p.block_stride * stage_.units_per_panel);
  code.imul(reg::weights, panel);
  code.add(reg::weights, ctx_.arg(offsetof(KernelArgs, weights)));
  add_offset(reg::weights, p.weights);
}

template <class Vmm>
void MatmulEmitter<Vmm>::add_offset(const Xbyak::Reg64& to, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes <= 0x7fffffff) {
    ctx_.code.add(to, static_cast<std::uint32_t>(bytes));
  } else {
    ctx_.code.mov(reg::scratch, bytes);
    ctx_.code.add(to, reg::scratch);
  }
}

/// Bytes of each unit block that have been fetched from fetch_from() on.
template <class Vmm>
Xbyak::Address MatmulEmitter<Vmm>::fetched(const Product& p) {
  return ctx_.frame.slot("fetched" + std::to_string(&p - stage_.products.data()));
}

template <class Vmm>
Xbyak::Address MatmulEmitter<Vmm>::fetch_from(const Product& p) {
  return ctx_.frame.slot("fetch from" + std::to_string(&p - stage_.products.data()));
}

template <class Vmm>
Xbyak::Address MatmulEmitter<Vmm>::next_panel(const Product& p) {
  return ctx_.frame.slot("next panel" + std::to_string(&p - stage_.products.data()));
}

/// The last panel of a step has none after it: then its own lines are asked for, which are there.
template <class Vmm>
void MatmulEmitter<Vmm>::start_fetch(EmitContext<Vmm>& ctx, const Stage& stage) {
  const auto wants = [&](const Product& p) { return ctx.fetches && p.fetch > 0; };
  if (!std::any_of(stage.products.begin(), stage.products.end(), wants)) return;
  auto& code = ctx.code;
  Xbyak::Label last;
  code.mov(kFetch, reg::panel);
  code.mov(reg::scratch, ctx.frame.slot("order"));
  if (PanelClaims<Vmm>::of(ctx, stage)) {
    code.cmp(reg::scratch, PanelClaims<Vmm>::order_end(ctx));
  } else {
    code.cmp(ctx.frame.slot("panels left"), 1);
  }
  code.je(last);
  code.mov(kFetch.cvt32(), dword[reg::scratch]);
  code.L(last);
  MatmulEmitter products(ctx, stage, {1, 1, 0});
  for (const Product& p : stage.products) {
    if (!wants(p)) continue;
    products.point_weights(p, kFetch);
    code.mov(products.next_panel(p), reg::weights);
    code.mov(products.fetch_from(p), reg::weights);
    code.mov(products.fetched(p), 0);
  }
}

template <class Vmm>
void MatmulEmitter<Vmm>::start_fetch(const Product& p, std::uint32_t k_block,
                                     const Xbyak::Address& start) {
  if (!ctx_.fetches || p.fetch == 0) return;
  auto& code = ctx_.code;
  Xbyak::Label last;
  code.mov(kFetch, next_panel(p));
  code.mov(reg::k, start);
  code.add(reg::k, k_block);
  code.cmp(reg::k, p.k);
  code.jae(last);
  point_weights(p);
  code.imul(kFetch, reg::k, k_bytes(p));
  code.add(kFetch, reg::weights);
  code.L(last);
  code.mov(fetch_from(p), kFetch);
  code.mov(fetched(p), 0);
}

/// Once all `bytes` have been asked for, the lines that this tile reads anyway are taken.
template <class Vmm>
void MatmulEmitter<Vmm>::point_fetch(const Product& p, std::uint64_t bytes) {
  auto& code = ctx_.code;
  Xbyak::Label done;
  code.mov(reg::scratch, fetched(p));
  code.mov(kFetch, reg::weights);
  code.cmp(reg::scratch, static_cast<std::uint32_t>(bytes));
  code.jae(done);
  code.mov(kFetch, fetch_from(p));
  code.add(kFetch, reg::scratch);
  code.L(done);
}

/// Beside step number `step` of a turn.
template <class Vmm>
void MatmulEmitter<Vmm>::fetch(const Product& p, int step) {
  for (int line = fetch_lines(p, step); line < fetch_lines(p, step + 1); ++line) {
    for (int unit = 0; unit < tile_.units; ++unit) {
      const int block = unit * static_cast<int>(p.block_stride);
      ctx_.code.prefetcht1(ptr[kFetch + disp(block + line * kLine)]);
    }
  }
}

template <class Vmm>
void MatmulEmitter<Vmm>::steps(const Product& p, int first, int count, bool indexed) {
  int beats = 0;
  for (int k = first; k < first + count; ++k) {
    const int chain = k % static_cast<int>(p.chains);
    if (tile_.rows == 1) {
      if (waits(p) && k % VecCode<Vmm>::kLanes == 0) look(p, k, first + count - k, indexed);
      step_one_row(p, k, chain, operand(p, k, k - first, first + count - k, indexed));
      while (beats < beats_within(k - first + 1, count)) {
        AheadEmitter<Vmm>(ctx_).beat();
        ++beats;
      }
      if (pieces_ > 0 && k % kWeave == kWeave - 1) {
        next_piece_();
        --pieces_;
        note(p);
      }
    } else {
      if (fetches(p)) fetch(p, k - first);
      step_rows(p, k, chain, indexed);
    }
  }
}

/// Steps of products of a later block that belong to the first `done` of `count` steps over k: as
/// many as the plan wants, rounded up, and evenly spread.
template <class Vmm>
int MatmulEmitter<Vmm>::beats_within(int done, int count) const {
  if (!ctx_.plan.ahead) return 0;
  const std::int64_t per = ctx_.plan.ahead->per;
  const std::int64_t all = (std::int64_t{count} * ctx_.plan.ahead->beats + per - 1) / per;
  return static_cast<int>(all * done / count);
}

/// Chains beyond the first take the registers behind the accumulators.
template <class Vmm>
int MatmulEmitter<Vmm>::accumulator(int row, int unit, int sum, int chain) const {
  const int first = regs_.accumulator(row, unit, sum);
  return chain == 0 ? first : first + chain * regs_.accumulators();
}

template <class Vmm>
Xbyak::Address MatmulEmitter<Vmm>::weight(const Product& p, int k, int unit,
                                          const Term& term) const {
  const int block = unit * static_cast<int>(p.block_stride);
  const int lane = static_cast<int>(term.lane * sizeof(float));
  return ptr[reg::weights + disp(block + k * k_bytes(p) + lane)];
}

namespace {
Xbyak::RegExp element(const Ref& ref, int row, int k, bool indexed) {
  const int offset = static_cast<int>(ref.offset) + 4 * k;
  return indexed ? reg::pointer[row] + reg::k * 4 + disp(offset) : reg::pointer[row] + disp(offset);
}
}  // namespace

/// At the first of the operand's numbers that stand in a vector, `left` of them before the end.
template <class Vmm>
void MatmulEmitter<Vmm>::look(const Product& p, int k, int left, bool indexed) {
  const int offset = static_cast<int>(p.operand.offset) + 4 * k;
  const Xbyak::RegExp row = reg::pointer[0];
  waits_->look(indexed ? row + reg::k * 4 + disp(offset) : row + disp(offset),
               std::min(left, VecCode<Vmm>::kLanes));
}

/// Whether four numbers of the operand are loaded at a time. Where each weight is loaded for one
/// multiply-add, two loads a cycle are what holds AVX2 code up; shuffles have a unit of their own.
/// The 512-bit ones of some cores have not: they share it with multiply-adds. Experiment:
/// DESIGN, 32.
template <class Vmm>
bool MatmulEmitter<Vmm>::by_four() const {
  return !VecCode<Vmm>::kAvx512 && tile_.rows == 1 && !ctx_.plan.weights_in_registers;
}

/// The register with number `k` of the operand in all lanes. In this run of straight code there are
/// `done` steps before it, and `left` with it and behind it.
template <class Vmm>
Vmm MatmulEmitter<Vmm>::operand(const Product& p, int k, int done, int left, bool indexed) {
  constexpr int kTop = VecCode<Vmm>::kRegisters - 1;
  if constexpr (!VecCode<Vmm>::kAvx512) {
    const int place = done % kFour;
    if (by_four() && left >= kFour - place) {
      const Vmm four(kTop - 1);
      if (place == 0) ctx_.vec.load_four(four, ptr[element(p.operand, 0, k, indexed)]);
      ctx_.vec.pick(Vmm(kTop), four, place);
      return Vmm(kTop);
    }
  }
  // Two registers in turn, so that listings and simple cores see no false dependence.
  const Vmm one(kTop - (k & 1));
  ctx_.vec.broadcast(one, dword[element(p.operand, 0, k, indexed)]);
  return one;
}

template <class Vmm>
void MatmulEmitter<Vmm>::step_one_row(const Product& p, int k, int chain, const Vmm& operand) {
  int index = 0;
  for (int unit = 0; unit < tile_.units; ++unit) {
    for (const Term& term : terms_.of(p, unit)) {
      const int acc = accumulator(0, unit, static_cast<int>(term.sum), chain);
      if (ctx_.plan.weights_in_registers) {
        const int w = ctx_.resident.at(&p) + k * terms_.count(p) + index++;
        terms_.multiply_add(term, acc, operand.getIdx(), w);
      } else {
        terms_.multiply_add(term, acc, operand.getIdx(), weight(p, k, unit, term));
      }
    }
  }
}

template <class Vmm>
void MatmulEmitter<Vmm>::load_resident(EmitContext<Vmm>& ctx) {
  ctx.resident_end = VecCode<Vmm>::kRegisters - 2;
  ctx.resident_begin = ctx.resident_end;
  for (const Stage& stage : ctx.plan.stages) {
    // All unit blocks are one panel.
    const Tile tile{1, static_cast<int>(ctx.plan.units(stage, 0)),
                    static_cast<int>(stage.width % ctx.plan.lanes)};
    const MatmulEmitter products(ctx, stage, tile);
    for (const Product& p : stage.products) {
      ctx.resident_begin -= static_cast<int>(p.k) * products.terms_.count(p);
      ctx.resident[&p] = ctx.resident_begin;
      ctx.code.mov(reg::weights, ctx.arg(offsetof(KernelArgs, weights)));
      int to = ctx.resident_begin;
      for (int k = 0; k < static_cast<int>(p.k); ++k) {
        for (int unit = 0; unit < tile.units; ++unit) {
          for (const Term& term : products.terms_.of(p, unit)) {
            const int block = unit * static_cast<int>(p.block_stride);
            const int from =
                block + k * products.k_bytes(p) + static_cast<int>(term.lane * sizeof(float));
            ctx.vec.load(Vmm(to++), ptr[reg::weights + p.weights + disp(from)]);
          }
        }
      }
    }
  }
}

template <class Vmm>
void MatmulEmitter<Vmm>::step_rows(const Product& p, int k, int chain, bool indexed) {
  const int top = VecCode<Vmm>::kRegisters - 1;
  const int w = top - tile_.rows;
  for (int row = 0; row < tile_.rows; ++row) {
    ctx_.vec.broadcast(Vmm(top - row), dword[element(p.operand, row, k, indexed)]);
  }
  for (int unit = 0; unit < tile_.units; ++unit) {
    for (const Term& term : terms_.of(p, unit)) {
      terms_.load(term, w, weight(p, k, unit, term));
      for (int row = 0; row < tile_.rows; ++row) {
        terms_.multiply_add(term, accumulator(row, unit, static_cast<int>(term.sum), chain),
                            top - row, w);
      }
    }
  }
}

/// Of all rows and unit blocks. Calls visit(row, unit, sum).
template <class Vmm>
template <class Visit>
void MatmulEmitter<Vmm>::each_sum(const Product& p, Visit visit) {
  for (int row = 0; row < tile_.rows; ++row) {
    for (int unit = 0; unit < tile_.units; ++unit) {
      for (const Term& term : terms_.of(p, unit)) visit(row, unit, static_cast<int>(term.sum));
    }
  }
}

template <class Vmm>
void MatmulEmitter<Vmm>::clear_chains(const Product& p) {
  for (int chain = 1; chain < static_cast<int>(p.chains); ++chain) {
    each_sum(p, [&](int row, int unit, int sum) {
      ctx_.vec.zero(Vmm(accumulator(row, unit, sum, chain)));
    });
  }
}

/// Adds the chains pairwise: ((0+1)+(2+3)).
template <class Vmm>
void MatmulEmitter<Vmm>::join_chains(const Product& p) {
  const int chains = static_cast<int>(p.chains);
  for (int step = 1; step < chains; step *= 2) {
    for (int c = 0; c + step < chains; c += 2 * step) {
      each_sum(p, [&](int row, int unit, int sum) {
        const Vmm to(accumulator(row, unit, sum, c));
        ctx_.code.vaddps(to, to, Vmm(accumulator(row, unit, sum, c + step)));
      });
    }
  }
}

template class MatmulEmitter<Xbyak::Ymm>;
template class MatmulEmitter<Xbyak::Zmm>;

}  // namespace deepcpu::jit
