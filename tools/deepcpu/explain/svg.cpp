// SPDX-License-Identifier: Apache-2.0
#include "tools/deepcpu/explain/svg.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace deepcpu::cli {
namespace {

constexpr std::string_view kAnchors[] = {"start", "middle", "end"};

std::string number(double v) {
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size >= 1e6) return fmt::format("{:g}M", v * 1e-6);
  if (size >= 1e4) return fmt::format("{:g}k", v * 1e-3);
  return fmt::format("{:.4g}", v);
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
        out += c;
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  }
  return out;
}

double Axis::at(double value) const {
  const auto scale = [&](double v) { return logarithmic ? std::log10(v) : v; };
  const double share = (scale(value) - scale(low)) / (scale(high) - scale(low));
  return from + share * (to - from);
}

std::vector<double> Axis::ticks(int most) const {
  std::vector<double> out;
  if (logarithmic && high / low >= 10.0) {
    const bool few = high / low < 100.0;
    for (double decade = std::pow(10.0, std::floor(std::log10(low))); decade <= high;
         decade *= 10) {
      for (const double part : {1.0, 2.0, 5.0}) {
        if (part > 1 && !few) continue;
        if (part * decade >= low && part * decade <= high) out.push_back(part * decade);
      }
    }
    return out;
  }
  const double rough = (high - low) / most;
  double step = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if (step < rough) step *= factor;
  }
  if (whole) step = std::max(1.0, std::round(step));
  for (double v = std::ceil(low / step) * step; v <= high * (1 + 1e-9); v += step) {
    out.push_back(v);
  }
  return out;
}

Axis axis_of(const std::vector<double>& values, bool logarithmic) {
  Axis out;
  out.logarithmic = logarithmic;
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  if (values.empty()) return out;
  out.low = logarithmic ? *least / 1.25 : 0.0;
  out.high = logarithmic ? *most * 1.25 : std::max(*most * 1.1, 1e-9);
  return out;
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view style) {
  body_ += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>)", x1,
                       y1, x2, y2, style);
}

void Svg::lines(const std::vector<std::pair<double, double>>& points, std::string_view style) {
  std::string at;
  for (const auto& [x, y] : points) at += fmt::format("{:.1f},{:.1f} ", x, y);
  body_ += fmt::format(R"(<polyline points="{}" class="{}"/>)", at, style);
}

void Svg::dot(double x, double y, std::string_view style, const std::string& tip) {
  body_ +=
      fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="5" class="{}"><title>{}</title></circle>)",
                  x, y, style, escape(tip));
}

void Svg::box(double x, double y, double width, double height, std::string_view style,
              const std::string& tip) {
  body_ += fmt::format(R"(<rect x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}")", x, y,
                       std::max(width, 0.0), height);
  body_ += fmt::format(R"( class="{}"><title>{}</title></rect>)", style, escape(tip));
}

void Svg::text(double x, double y, Anchor anchor, const std::string& text, std::string_view style) {
  body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>)", x, y,
                       kAnchors[static_cast<std::size_t>(anchor)], style, escape(text));
}

void Svg::frame(const Axis& x, const Axis& y, const std::string& x_name,
                const std::string& y_name) {
  for (const double v : x.ticks(6)) {
    line(x.at(v), y.from, x.at(v), y.to, "grid");
    text(x.at(v), y.from + 15, Anchor::middle, number(v), "tick");
  }
  for (const double v : y.ticks(6)) {
    line(x.from, y.at(v), x.to, y.at(v), "grid");
    text(x.from - 5, y.at(v) + 4, Anchor::end, number(v), "tick");
  }
  line(x.from, y.from, x.to, y.from, "axis");
  line(x.from, y.from, x.from, y.to, "axis");
  text((x.from + x.to) / 2, y.from + 32, Anchor::middle, x_name);
  text(4, y.to - 8, Anchor::start, y_name);
}

void Svg::legend(const std::vector<std::pair<std::string, std::string>>& styles) {
  double x = 4.0;
  double y = 14.0;
  for (const auto& [name, style] : styles) {
    const double width = 22.0 + 7.4 * static_cast<double>(name.size());
    if (x + width > kWidth) {
      x = 4.0;
      y += 18.0;
    }
    box(x, y - 9, 10, 10, style, name);
    text(x + 15, y, Anchor::start, name);
    x += width;
  }
}

std::string Svg::str(const std::string& label) const {
  return fmt::format(R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>)",
                     kWidth, height_, escape(label), body_) +
         "\n";
}

}  // namespace deepcpu::cli
