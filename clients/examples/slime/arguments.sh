# slime's part of the command line.
export ASSAY_URL=http://127.0.0.1:8000 ASSAY_REWARD_MODEL=code@2 ASSAY_REWARD_ON_FAILURE=skip
python train.py \
  --custom-rm-path assay_client.trainers.slime.custom_rm \
  --dynamic-sampling-filter-path assay_client.trainers.slime.keep_scored
