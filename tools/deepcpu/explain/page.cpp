// SPDX-License-Identifier: Apache-2.0
/// An explanation as one HTML page.
#include <fmt/format.h>

#include "tools/deepcpu/explain/charts.hpp"
#include "tools/deepcpu/explain/render.hpp"
#include "tools/deepcpu/explain/svg.hpp"

namespace deepcpu::cli {
namespace {

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5a636e;--line:#d5dae0;--card:#f6f8fa;
--hoist:#0072b2;--products:#d55e00;--gates:#009e73;--waiting:#cc79a7;--calls:#8a939c;
--predicted:#0072b2;--measured:#d55e00;--limit:#009e73}
@media (prefers-color-scheme:dark){:root{--bg:#0f1318;--fg:#e4e8ec;--soft:#9aa5b1;--line:#333b44;
--card:#181e25;--hoist:#56b4e9;--products:#f0883e;--gates:#3fc495;--waiting:#e29ac2;--calls:#7d8792;
--predicted:#56b4e9;--measured:#f0883e;--limit:#3fc495}}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px;max-width:1240px;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.35rem;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 8px}
p{margin:4px 0}.soft{color:var(--soft);overflow-wrap:anywhere}.soft{font-size:.9rem}
.key{font-size:1.1rem;font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;
margin:16px 0;align-items:start}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px;
margin:16px 0;min-width:0}.charts section{margin:0}
.scroll{overflow-x:auto}
.scroll+.scroll{margin-top:16px}table{border-collapse:collapse;font-variant-numeric:tabular-nums;
font-size:.92rem;width:100%}
th,td{padding:4px 12px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}.n{text-align:right;white-space:nowrap}
.w{min-width:15rem}pre{overflow-x:auto;font-size:.85rem;margin:8px 0}
code{overflow-wrap:anywhere;font-size:.85rem}summary{cursor:pointer;font-weight:600}
svg{display:block;width:100%;height:auto}svg text{fill:var(--fg);font-size:12.5px}
svg text.tick{fill:var(--soft);font-size:11px}
svg text.halo{paint-order:stroke;stroke:var(--card);stroke-width:3px;font-size:11.5px}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
.ceiling{stroke:var(--soft);stroke-width:1.5}
.diagonal{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}
.hoist{fill:var(--hoist)}.products{fill:var(--products)}.gates{fill:var(--gates)}
.waiting{fill:var(--waiting)}.calls{fill:var(--calls)}
.predicted{fill:var(--predicted);stroke:var(--predicted)}
.measured{fill:var(--measured);stroke:var(--measured)}
.limit{fill:var(--limit);stroke:var(--limit)}.line{fill:none;stroke-width:2}
@media (max-width:480px){svg text,svg text.halo{font-size:14px}svg text.tick{font-size:13px}}
)";

/// A cell's text is escaped here; `number` sets it to the right.
struct Column {
  std::string_view name;
  bool number = false;
  bool wide = false;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {
    std::vector<std::string> names;
    for (const Column& c : columns_) names.emplace_back(c.name);
    body_ = "<thead>" + line(names, "th") + "</thead><tbody>";
  }
  void row(const std::vector<std::string>& cells) { body_ += line(cells, "td"); }
  std::string str() const {
    return "<div class=\"scroll\"><table>" + body_ + "</tbody></table></div>\n";
  }

 private:
  std::string line(const std::vector<std::string>& cells, std::string_view tag) const {
    std::string out = "<tr>";
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string_view style = columns_[i].number ? " class=\"n\""
                                     : columns_[i].wide ? " class=\"w\""
                                                        : "";
      out += fmt::format("<{0}{1}>{2}</{0}>", tag, style, escape(cells[i]));
    }
    return out + "</tr>\n";
  }

  std::vector<Column> columns_;
  std::string body_;
};

std::string paragraph(const std::string& text, std::string_view style = "soft") {
  return fmt::format("<p class=\"{}\">{}</p>\n", style, escape(text));
}

std::string section(std::string_view name, const std::string& inner) {
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", name, inner);
}

std::string folded(std::string_view name, const std::string& text) {
  return fmt::format("<section><details><summary>{}</summary><pre>{}</pre></details></section>\n",
                     name, escape(text));
}

std::string schedule_section(const Explanation& e) {
  std::string out;
  const std::string words = in_words(e.schedule, e.spec);
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = std::min(words.find('\n', at), words.size());
    out += paragraph(words.substr(at, end - at), "words");
    at = end + 1;
  }
  out += paragraph("Chosen: " + e.chosen_by + ".");
  return section("The schedule",
                 out + "<p><code>" + escape(e.schedule.to_json()) + "</code></p>\n");
}

std::string parts_section(const Explanation& e) {
  Table table({{"part"},
               {"predicted us", true},
               {"measured us", true},
               {"how it is measured", false, true}});
  for (const PartRow& row : part_rows(e)) {
    table.row({std::string(row.name), fmt::format("{:.1f}", row.predicted_us),
               us_text(row.measured_us), std::string(e.measured ? row.how : "")});
  }
  const std::string note =
      e.measured ? fmt::format(
                       "Of the busiest thread. {} rounds, spread {:.1f} %. Differences of "
                       "medians can be a little below zero.",
                       e.measured->run.rounds, 100 * e.measured->run.spread)
                 : "Of the busiest thread. Not measured: " + e.not_measured + ".";
  return section("Time by part", table.str() + paragraph(note));
}

std::string limit_section(const Explanation& e) {
  Table table({{"term"}, {"us", true}, {"what", false, true}});
  for (const LimitRow& row : limit_rows(e)) {
    table.row({std::string(row.name), fmt::format("{:.1f}", row.us), std::string(row.what)});
  }
  return section("The limit", table.str());
}

std::string levels_section(const Explanation& e) {
  Table table({{"level"}, {"GB/s", true}, {"serves", true}, {"hoisted", true}, {"in loop", true}});
  for (const LevelRow& row : level_rows(e)) {
    table.row({row.name, fmt::format("{:.1f}", row.gbytes_per_s),
               row.serves_bytes ? bytes_text(*row.serves_bytes) : "-",
               bytes_text(row.hoisted_bytes), bytes_text(row.in_loop_bytes)});
  }
  return section(
      "Bytes and FLOPs",
      table.str() + paragraph(fmt::format(
                        "Weights that the busiest thread reads in a run, by the cost model; "
                        "rates of one core with {} active. {:.2f} MFLOP of products on all "
                        "threads.",
                        active_cores(e), e.predicted.flops * 1e-6)));
}

std::string others_section(const Explanation& e) {
  Table table(
      {{"differs in"}, {"predicted us", true}, {"measured us", true}, {"why not", false, true}});
  for (const Alternative& a : e.alternatives) {
    const bool timed = a.measured.rounds > 0;
    table.row({a.differs, fmt::format("{:.1f}", a.predicted.us),
               timed ? us_text(a.measured_us) : "-", a.why});
  }
  return section("Other schedules", table.str());
}

std::string space_section(const Explanation& e) {
  Table sizes({{"schedules", true}, {"left after", false, true}, {"may lose", false, true}});
  sizes.row({count_text(e.space.raw), "all combinations", ""});
  sizes.row({count_text(e.space.valid), "valid and emitted", "what no code is emitted for"});
  for (const PrunedSize& p : e.space.pruned) sizes.row({count_text(p.size), p.rule, p.may_lose});
  Table rows({{"decision"},
              {"values", true},
              {"emitted", true},
              {"why", false, true},
              {"not emitted", false, true}});
  for (const SpaceRow& r : e.space.rows) {
    rows.row({r.name + (r.per_layer ? " (per layer)" : ""), count_text(r.raw),
              std::to_string(r.emitted), r.reason, r.not_emitted});
  }
  return section("The space of schedules", sizes.str() + rows.str());
}

std::string head(const Explanation& e) {
  std::string out = fmt::format("<h1>{}</h1>\n", escape(e.spec.str()));
  out += paragraph(fmt::format("{:.1f} us for {:.0f} steps, {}", e.run_us(), e.steps,
                               e.measured ? "measured" : "predicted"),
                   "key");
  out += paragraph(fraction_line(e) + ".", "words");
  out += paragraph(fmt::format("{}, {} of at most {} threads. Machine: {}", to_string(e.isa),
                               e.schedule.threads, e.threads, machine_line(e)));
  for (const std::string& note : e.notes) out += paragraph(note);
  return out;
}

}  // namespace

std::string explanation_page(const Explanation& e) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n";
  out += fmt::format("<title>{}</title>\n<style>{}</style></head>\n<body>\n",
                     escape("deepcpu explain " + e.spec.str()), kStyle);
  out += head(e);
  out += "<div class=\"charts\">\n";
  out += section("Roofline", roofline_chart(e));
  out += section("A step, thread by thread", timeline_chart(e));
  if (const std::string chart = candidates_chart(e); !chart.empty()) {
    out += section("Predicted and measured", chart);
  }
  out += section("Speed over threads", threads_chart(e));
  out += "</div>\n";
  out += schedule_section(e) + parts_section(e) + limit_section(e) + levels_section(e);
  out += others_section(e) + space_section(e);
  out += folded("MM-DAG", e.dag) + folded("Phases", e.phases);
  return out + "</body></html>\n";
}

}  // namespace deepcpu::cli
