// SPDX-License-Identifier: Apache-2.0
/// An explanation for scripts.
#include <nlohmann/json.hpp>
#include <string>

#include "tools/deepcpu/explain/render.hpp"

namespace deepcpu::cli {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(std::optional<double> value) { return value ? Json(*value) : Json(nullptr); }

Json schedule_json(const Schedule& s) { return Json::parse(s.to_json()); }

Json parts_json(const CostParts& p) {
  return {{"hoist", p.hoist},
          {"products", p.products},
          {"gates", p.gates},
          {"exchange", p.exchange},
          {"calls", p.calls}};
}

Json space_json(const SpaceSizes& sizes) {
  Json rows = Json::array();
  for (const SpaceRow& r : sizes.rows) {
    rows.push_back({{"decision", r.name},
                    {"per_layer", r.per_layer},
                    {"values", r.values},
                    {"raw", r.raw.str()},
                    {"emitted", r.emitted},
                    {"why", r.reason},
                    {"not_emitted", r.not_emitted}});
  }
  Json pruned = Json::array();
  for (const PrunedSize& p : sizes.pruned) {
    pruned.push_back({{"rule", p.rule}, {"may_lose", p.may_lose}, {"size", p.size.str()}});
  }
  return {{"raw", sizes.raw.str()},
          {"valid", sizes.valid.str()},
          {"pruned", std::move(pruned)},
          {"decisions", std::move(rows)}};
}

Json measured_json(const Explanation& e) {
  if (!e.measured) return nullptr;
  Json threads = Json::array();
  for (const OwnTimes& t : e.measured->participants) {
    threads.push_back(
        {{"hoist", t.hoist_us}, {"products", t.loop_us - t.gates_us}, {"gates", t.gates_us}});
  }
  return {{"run_us", e.measured->run.median_us},
          {"spread", e.measured->run.spread},
          {"rounds", e.measured->run.rounds},
          {"threads_us", std::move(threads)}};
}

Json levels_json(const Explanation& e) {
  Json out = Json::array();
  for (const LevelRow& r : level_rows(e)) {
    out.push_back({{"level", r.name},
                   {"gbytes_per_s", r.gbytes_per_s},
                   {"serves_bytes", or_null(r.serves_bytes)},
                   {"hoisted_bytes", r.hoisted_bytes},
                   {"in_loop_bytes", r.in_loop_bytes}});
  }
  return out;
}

Json limit_json(const Explanation& e) {
  const Limit& l = e.limit;
  return {{"us", l.us},
          {"threads", l.threads},
          {"hoist_us", l.hoist_us},
          {"flops_us", l.flops_us},
          {"bytes_us", l.bytes_us},
          {"chain_us", l.chain_us},
          {"exchange_us", l.exchange_us},
          {"floor_us", l.floor_us},
          {"fraction", e.fraction()},
          {"fraction_of", e.measured ? "measured" : "predicted"}};
}

Json alternatives_json(const Explanation& e) {
  Json out = Json::array();
  for (const Alternative& a : e.alternatives) {
    const bool timed = a.measured.rounds > 0;
    out.push_back({{"schedule", schedule_json(a.schedule)},
                   {"differs", a.differs},
                   {"predicted_us", a.predicted.us},
                   {"measured_us", timed ? Json(a.measured_us) : Json(nullptr)},
                   {"parts_us", parts_json(a.predicted.parts)},
                   {"why", a.why}});
  }
  return out;
}

Json threads_json(const Explanation& e) {
  Json out = Json::array();
  for (const ThreadPoint& p : e.over_threads) {
    out.push_back({{"threads", p.threads},
                   {"predicted_us", p.predicted_us},
                   {"measured_us", p.measured_us > 0 ? Json(p.measured_us) : Json(nullptr)},
                   {"limit_us", p.limit_us}});
  }
  return out;
}

}  // namespace

std::string explanation_json(const Explanation& e) {
  Json json;
  json["problem"] = e.spec.str();
  json["isa"] = std::string(to_string(e.isa));
  json["threads"] = e.threads;
  json["steps"] = static_cast<std::int64_t>(e.steps);
  json["machine"] = {{"key", e.machine.key},
                     {"source", std::string(to_string(e.machine.source))},
                     {"note", e.machine.note},
                     {"described", e.described}};
  json["dag"] = e.dag;
  json["phases"] = e.phases;
  json["space"] = space_json(e.space);
  json["schedule"] = schedule_json(e.schedule);
  json["chosen"] = e.chosen_by;
  json["words"] = in_words(e.schedule, e.spec);
  json["predicted_us"] = e.predicted.us;
  json["measured_us"] = e.measured ? Json(e.measured->run.median_us) : Json(nullptr);
  Json parts = Json::array();
  for (const PartRow& r : part_rows(e)) {
    parts.push_back({{"part", std::string(r.name)},
                     {"predicted_us", r.predicted_us},
                     {"measured_us", or_null(r.measured_us)},
                     {"how", std::string(r.how)}});
  }
  json["parts"] = std::move(parts);
  json["measured"] = measured_json(e);
  if (!e.measured) json["not_measured"] = e.not_measured;
  json["flops"] = {{"all", e.predicted.flops},
                   {"hoisted", e.predicted.hoisted.flops},
                   {"in_loop", e.predicted.in_loop.flops},
                   {"peak_gflops", e.machine.fma_gflops(e.isa, active_cores(e))}};
  json["levels"] = levels_json(e);
  json["limit"] = limit_json(e);
  json["others"] = alternatives_json(e);
  json["over_threads"] = threads_json(e);
  json["notes"] = e.notes;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace deepcpu::cli
