# verl's part of the command line. The rows of the data set keep their prompt in extra_info.question.
python -m verl.trainer.main_ppo \
  reward.reward_manager.name=naive \
  reward.custom_reward_function.path=pkg://assay_client.trainers.verl \
  reward.custom_reward_function.name=compute_score \
  +reward.custom_reward_function.reward_kwargs.url=http://127.0.0.1:8000 \
  +reward.custom_reward_function.reward_kwargs.model=code@2 \
  +reward.custom_reward_function.reward_kwargs.on_failure=raise \
  +reward.custom_reward_function.reward_kwargs.fields.prompt=question \
  +reward.custom_reward_function.reward_kwargs.fields.response=response
