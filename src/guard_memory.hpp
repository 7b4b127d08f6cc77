// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <new>
#include <stdexcept>
#include <string_view>

#include "deepcpu/result.hpp"

namespace deepcpu {

/// Returns body(), which gives a Result or a Status; if memory runs out inside, the error
/// "memory: there is not enough to <what>". Stands around every public function that can fail, so
/// that what is below may use the standard library as it is.
template <class Body>
auto guard_memory(std::string_view what, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Error::memory(what);
  } catch (const std::length_error&) {  // more elements than a container can count
    return Error::memory(what);
  }
}

}  // namespace deepcpu
