// SPDX-License-Identifier: Apache-2.0
#pragma once

#define DEEPCPU_VERSION_MAJOR 0
#define DEEPCPU_VERSION_MINOR 1
#define DEEPCPU_VERSION_PATCH 0
#define DEEPCPU_VERSION "0.1.0"
