// SPDX-License-Identifier: Apache-2.0
/// Small charts as SVG inside a page. Colours and sizes of text come from the page's style.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace deepcpu::cli {

/// Text for HTML and for attributes: no markup, no control characters.
std::string escape(std::string_view text);

/// A scale of numbers along one side of a chart.
struct Axis {
  double low = 0.0;
  double high = 1.0;
  bool logarithmic = false;  ///< then low > 0
  bool whole = false;        ///< ticks are whole numbers
  double from = 0.0;         ///< where `low` is drawn
  double to = 1.0;

  double at(double value) const;
  /// Round numbers inside, about `most` of them.
  std::vector<double> ticks(int most) const;
};

/// A range of values that all of `values` lie in with some room; of positive ones if logarithmic.
Axis axis_of(const std::vector<double>& values, bool logarithmic);

enum class Anchor { start, middle, end };

/// A drawing of kWidth x kHeight units.
class Svg {
 public:
  static constexpr double kWidth = 400.0;

  explicit Svg(double height = 300.0) : height_(height) {}

  void line(double x1, double y1, double x2, double y2, std::string_view style);
  void lines(const std::vector<std::pair<double, double>>& points, std::string_view style);
  /// `tip` is shown when the pointer rests on it.
  void dot(double x, double y, std::string_view style, const std::string& tip);
  void box(double x, double y, double width, double height, std::string_view style,
           const std::string& tip);
  void text(double x, double y, Anchor anchor, const std::string& text,
            std::string_view style = "");

  /// Both axes with their ticks and names.
  void frame(const Axis& x, const Axis& y, const std::string& x_name, const std::string& y_name);
  /// Names of styles below the title, each with its colour.
  void legend(const std::vector<std::pair<std::string, std::string>>& styles);

  /// `label` says what is drawn to those who cannot see it.
  std::string str(const std::string& label) const;

 private:
  double height_;
  std::string body_;
};

}  // namespace deepcpu::cli
