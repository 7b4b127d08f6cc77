// SPDX-License-Identifier: Apache-2.0
/// The one place that includes Xbyak.
#pragma once

/// A register that does not fit the stated size of its memory operand is an emission error.
#ifndef XBYAK_STRICT_CHECK_MEM_REG_SIZE
#define XBYAK_STRICT_CHECK_MEM_REG_SIZE
#endif

#include <xbyak/xbyak.h>
