// SPDX-License-Identifier: Apache-2.0
/// Everything of DeepCPU's C++ interface.
#pragma once

#include "deepcpu/cell.hpp"
#include "deepcpu/kernels.hpp"
#include "deepcpu/model.hpp"
#include "deepcpu/result.hpp"
#include "deepcpu/schedule.hpp"
#include "deepcpu/version.hpp"
#include "deepcpu/wisdom.hpp"
