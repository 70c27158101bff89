// The fine-tuning loop: model, data and config in; adapter or whole model, metrics and checkpoints
// out.
//
//   TrainConfig ─► Trainer::run: plan → batches → loss → backward → clip → step → log, evaluate,
//   save
//
// Methods differ in which parameters require gradients (parameters.h) and in how the base is
// stored, nothing else. An interrupted run resumes from its last checkpoint and ends as an
// uninterrupted one would: order, augmentation and dropout depend on the seed and the step alone.
// Several processes (distributed.h) each take their share of a step's batches; all go through the
// same steps, and rank 0 writes. Its parts are in other files: trained_model, training_data,
// batches/, loss, optimizer, evaluation/, step_log, training_state, report/.
#pragma once

#include <memory>
#include <optional>

#include "data/skipped_samples.h"
#include "train/batches/picture_store.h"
#include "train/batches/step_loader.h"
#include "train/batches/training_data.h"
#include "train/config/train_config.h"
#include "train/evaluation/answer_function.h"
#include "train/evaluation/evaluator.h"
#include "train/jobs/distributed.h"
#include "train/jobs/gradient_sums.h"
#include "train/model/trained_model.h"
#include "train/optimizer/optimizer.h"
#include "train/optimizer/schedule.h"
#include "train/plan/run_plan.h"
#include "train/report/metrics_log.h"
#include "train/report/run_record.h"
#include "train/run/run_folder.h"
#include "train/run/training_state.h"
#include "train/step_log.h"
#include "vlm/nn/runtime.h"

namespace vlm::train {

struct TrainOptions {
  RuntimeOptions runtime;
  bool restart = false;                    // removes the checkpoints in output_dir
  AnswerFunction answer = {};              // needed for eval_metrics
  std::filesystem::path config_file = {};  // that the config was read from; it is never moved
};

enum class TrainResult { kFinished, kInterrupted };

class Trainer {
 public:
  // Loads model and data. Throws Error for whatever doesn't fit.
  Trainer(TrainConfig config, const TrainOptions& options);
  ~Trainer();

  // Trains to the end, or until stop_requested(); then a checkpoint is saved to resume from.
  TrainResult run();

 private:
  void find_start();
  void load_start();
  void begin_folder();
  void open_pictures(at::Device device);
  void release_tower();
  LoaderOptions loader_options() const;
  TrainResult train();
  // Gets the next step's data; false when all processes are to stop. Sums over all processes go
  // into `figures` and `labels`.
  bool next_step(StepLoader& loader, StepData& data, StepFigures& figures, double& labels);
  // One step on this process's batches; `labels` is the number over all processes. Sets loss,
  // grad_norm and read_at.
  void train_step(const StepData& data, double labels, StepFigures& figures);
  // Forward and backward of the batches; the loss, on the device.
  at::Tensor run_batches(const StepData& data, double labels);
  std::vector<data::Batch> split(const data::Batch& batch, int halvings) const;
  at::Tensor run_fitting(const StepData& data, double labels);
  bool halve(const StepData& data);
  // Saves the checkpoint and the result and evaluates, each when it is due; false when told to
  // stop.
  bool end_step();
  bool is_evaluated(std::int64_t step) const;
  // These two return false when told to stop.
  bool evaluate_start();
  bool evaluate();
  TrainResult stop();
  // After an error, saves the steps that no checkpoint has yet.
  void save_learned();
  bool saves_checkpoints() const;
  void save_checkpoint();
  void save_result();
  void check_number(double value, const char* name) const;
  void check_finite(const NamedTensors& tensors);
  std::string resume_hint(std::int64_t saved) const;
  TrainResult finish();
  bool restore_best();
  RunRecord load_record() const;
  void write_report() const;
  void update_report() const;

  TrainConfig config_;
  TrainOptions options_;
  OrderedJson effective_config_;
  std::unique_ptr<RunFolder> folder_;  // null on other ranks than 0
  std::optional<RunPlan> plan_;        // with memory_gb
  std::unique_ptr<Job> job_;
  at::Device device_ = at::kCPU;
  TrainedModel trained_;
  TrainingData data_;
  std::unique_ptr<PictureStore> pictures_;
  Schedule schedule_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<GradientSums> sums_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<data::SkippedSamples> skipped_;
  std::unique_ptr<Evaluator> evaluator_;  // null without eval_files
  TrainingState state_;
  int halvings_ = 0;               // of each batch, as the device's memory asked for
  std::int64_t saved_step_ = 0;    // of the newest checkpoint
  std::int64_t written_step_ = 0;  // whose weights are the result in output_dir
  // True while the weights are those after state_.step, and finite.
  bool is_sound_ = true;
  std::optional<std::int64_t> result_step_;  // set at the end, when an earlier step was better
};

}  // namespace vlm::train
