#pragma once

/// \file
/// Pages of a run and of explanations, one HTML file each (docs/report.md).

#include <atmanrl/report/explain_page.hpp>
#include <atmanrl/report/run_page.hpp>
