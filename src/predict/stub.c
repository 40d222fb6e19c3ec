typedef int hypura_predict_stub;
