/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copyright Authors of Hypha */
/* The one variable that the loader sets before loading a program object. */
#pragma once

#include "config.h"

const volatile struct config cfg;
