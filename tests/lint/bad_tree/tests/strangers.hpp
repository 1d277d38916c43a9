#pragma once
namespace strangers {
static_assert(atmanrl::Reward<mine> && !atmanrl::Sampler<mine>);
static_assert(atmanrl::Advantage<mine> &&
              atmanrl::RewardAdvantage<mine>);
// static_assert(atmanrl::TableAdvantage<mine>);
}  // namespace strangers
