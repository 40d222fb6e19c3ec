typedef int hypura_plan_stub;
