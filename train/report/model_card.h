// README.md beside the result: a model card as the hub and PEFT have it.
//
//   RunRecord ─► make_model_card ─► YAML front matter (base_model, library_name, pipeline_tag,
//   tags), what was trained on what, the comparison with the untuned model, how to use it
//
// Reference: peft 0.21.2's create_or_update_model_card.
#pragma once

#include <string>

#include "train/report/run_record.h"

namespace vlm::train {

std::string make_model_card(const RunRecord& record);

}  // namespace vlm::train
