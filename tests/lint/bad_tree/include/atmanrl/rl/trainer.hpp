#pragma once
/// \file
/// In order as far as ranks go, but with a wrong word.
// TODO write it
