// SPDX-License-Identifier: Apache-2.0
/// DEEPCPU_SANITIZER is 1 in builds with the address or the thread sanitizer, which bring an
/// allocator and reserve address space of their own; else 0. DEEPCPU_THREAD_SANITIZER is 1 with the
/// latter alone, which runs a thread of its own in every process.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DEEPCPU_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DEEPCPU_SANITIZER 1
#endif
#endif

#ifndef DEEPCPU_SANITIZER
#define DEEPCPU_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__)
#define DEEPCPU_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DEEPCPU_THREAD_SANITIZER 1
#endif
#endif

#ifndef DEEPCPU_THREAD_SANITIZER
#define DEEPCPU_THREAD_SANITIZER 0
#endif
